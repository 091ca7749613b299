"""Words and what they mean among ImageNet's classes, and among others."""

import numpy as np
import pytest

from imagenet_jax.data.labels.classes import readable, wnids
from imagenet_jax.errors import UserError
from imagenet_jax.retrieval import words
from imagenet_jax.retrieval.store import Predictions

NAMES = tuple(readable(wnids()))


@pytest.mark.parametrize(
    ("word", "counts"),  # of classes, a sense each: counted in WordNet
    [
        ("dog", [118]),
        ("dogs", [118]),
        ("Bird", [59]),
        ("crane", [1, 1]),
        ("snakes", [17]),
        ("musical instrument", [26]),
        ("foxes", [4]),
    ],
)
def test_senses_are_counted(word, counts):
    assert [len(s.classes) for s in words.senses(word, NAMES)] == counts


def test_senses_say_what_they_are_kinds_of():
    bird, machine = words.senses("crane", NAMES)
    assert "bird" in bird.path
    assert "device" in machine.path
    assert [wnids()[i] for i in bird.classes] == [bird.key]
    assert words.sense_of(bird.key, NAMES) == bird


def test_unknown_words_come_with_near_ones():
    with pytest.raises(UserError, match="No class of this model is a kind of 'giraffe'"):
        words.senses("giraffe", NAMES)
    with pytest.raises(UserError, match="Did you mean 'trombone'"):
        words.senses("tromboni", NAMES)


def test_other_classes_are_found_by_name():
    assert words.senses("Cats", ("dog", "cat")) == [words.Sense("cat", ("cat",), (1,))]
    with pytest.raises(UserError, match="Did you mean 'cat'"):
        words.senses("catt", ("dog", "cat"))
    with pytest.raises(UserError, match="no category"):
        words.sense_of("n01503061", ("dog", "cat"))


def test_score_is_the_probability_of_all_classes_below():
    shard = Predictions(np.int32([[0, 1], [2, 3], [1, 3]]), np.float32([[0.5, 0.25], [0.75, 0.125], [0.5, 0.25]]))
    assert words.mass(shard, [0, 1], 4).tolist() == [0.75, 0, 0.5]
    found = words.most_probable([(0, shard), (3, shard)], [0, 1], 4, 5)
    assert found.rows.tolist() == [[0, 3, 2, 5, -1]]  # images without any are not found


def test_facets_count_images_and_are_special():
    dogs = words.senses("dog", NAMES)[0].classes[:3]
    found = words.facets([*dogs, 0, 1], NAMES)  # two fishes
    assert ["fish" in f["path"] for f in found if f["count"] == 2] == [True]
    assert sum(f["count"] == 3 for f in found) == 1  # of canine, carnivore, dog ..., one
    assert len({f["count"] for f in found} & {5}) == 0
