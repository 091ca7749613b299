"""WordNet above the 1000 classes: counted facts of the table, and every question against a slow answer on a small graph."""

import functools
import itertools
import random

import pytest

from imagenet_jax.data.labels import classes
from imagenet_jax.data.labels.hierarchy import Hierarchy, Synset, depths_of, imagenet1k

DOG, BIRD, VEHICLE, ENTITY = "n02084071", "n01503061", "n04524313", "n00001740"
TENCH, GOLDFISH, TOILET_TISSUE, CRANE_BIRD, CRANE_MACHINE = "n01440764", "n01443537", "n15075141", "n02012849", "n03126707"


def test_the_leaves_are_the_classes_under_one_root_without_cycles():
    tree = imagenet1k()
    assert (len(tree.synsets), sum(len(s.parents) for s in tree.synsets.values())) == (1860, 1937)
    assert sorted(tree.classes_of(ENTITY)) == classes.wnids()
    assert [w for w, s in tree.synsets.items() if not s.parents] == [ENTITY]
    assert tree.height(ENTITY) == 18  # a cycle would not end


@pytest.mark.parametrize(("category", "count"), [(DOG, 118), (BIRD, 59), (VEHICLE, 67)])
def test_categories_have_as_many_classes_as_is_known(category, count):
    assert len(imagenet1k().classes_of(category)) == count


def test_two_cranes_are_kept_apart():
    tree = imagenet1k()
    assert tree.words(CRANE_BIRD) == tree.words(CRANE_MACHINE) == "crane"
    assert tree.is_a(CRANE_BIRD, BIRD)
    assert not tree.is_a(CRANE_MACHINE, BIRD)
    assert [tree.words(w) for w in tree.path(CRANE_BIRD)] == [
        "entity", "physical entity", "object", "whole", "living thing", "organism", "animal",
        "chordate", "vertebrate", "bird", "aquatic bird", "wading bird", "crane",
    ]  # fmt: skip


def test_mistakes_are_as_severe_as_their_nearest_common_kind_is_high():
    tree = imagenet1k()
    assert tree.severity(TENCH, TENCH) == 0
    assert tree.severity(TENCH, GOLDFISH) == 1  # both are cyprinids
    assert tree.severity(TENCH, TOILET_TISSUE) == tree.severity(TOILET_TISSUE, TENCH) == 17  # physical entity


def test_answers_on_a_graph_with_several_ways_are_those_of_all_paths():
    rng = random.Random(0)
    parents = {f"n{i}": tuple(f"n{j}" for j in sorted(rng.sample(range(i), min(i, rng.choice((1, 1, 2)))))) for i in range(40)}
    tree = Hierarchy({wnid: Synset(above, (wnid,)) for wnid, above in parents.items()})

    @functools.cache
    def paths(wnid):
        return [(*path, wnid) for above in parents[wnid] for path in paths(above)] if parents[wnid] else [(wnid,)]

    every = [path for wnid in parents for path in paths(wnid)]
    height = {w: max(len(path) - 1 - path.index(w) for path in every if w in path) for w in parents}
    for a, b in itertools.product(parents, parents):
        assert tree.is_a(a, b) == any(b in path for path in paths(a))
        common = [w for w in parents if tree.is_a(a, w) and tree.is_a(b, w)]
        assert tree.severity(a, b) == (0 if a == b else min(height[w] for w in common))
    leaves = {w for w in parents if height[w] == 0}
    assert all(tree.classes_of(w) == {leaf for leaf in leaves if tree.is_a(leaf, w)} for w in parents)
    assert all(tuple(tree.path(w)) in paths(w) for w in parents)
    some = sorted(parents)[::3]
    for wnid, found in zip(some, tree.nearest_classes(some), strict=True):
        above = [some.index(w) for w in tree.path(wnid)[:-1] if w in some]
        assert found == (above[-1] if above else -1)
    counts = [sum(w in some for w in tree.path(wnid)[:-1]) for wnid in some]
    assert depths_of(tree.nearest_classes(some)).tolist() == counts
    assert max(counts) > 1
