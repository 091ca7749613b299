"""The test sets of papers, on tiny trees and tars of the shape that their authors publish."""

import pytest

from imagenet_jax import cli, prepare, suite
from imagenet_jax.data.labels import classes, papers
from imagenet_jax.data.reading.sources import open_source
from imagenet_jax.errors import UserError

WNIDS = classes.wnids()


@pytest.fixture
def tree(tmp_path, make_image):
    """tree(root, folders): two JPEGs in each."""

    def make(root, folders):
        for number, folder in enumerate(folders):
            (tmp_path / root / folder).mkdir(parents=True)
            for i in range(2):
                (tmp_path / root / folder / f"{i}.jpeg").write_bytes(make_image(seed=10 * number + i))
        return tmp_path / root

    return make


def prepared(tmp_path, name, source):
    assert prepare.main([name, f"--source={source}", f"--data_dir={tmp_path / 'data'}"]) == cli.FINISHED
    return tmp_path / "data"


def test_v2_counts_its_folders_as_numbers(tree, tmp_path, capsys):
    """Sorted as text, 10 comes before 2."""
    source = tree("imagenetv2-matched-frequency-format-val", ["0", "2", "10", "999"])
    data_dir = prepared(tmp_path, "imagenet_v2/matched-frequency", source)
    assert "8 images in 4 classes; official: 10,000 in 1,000 - DIFFERS" in capsys.readouterr().out
    found = open_source(data_dir, "imagenet_v2/matched-frequency", "test")
    assert found.classes == tuple(classes.readable(WNIDS))
    assert {(r.name, r.label) for r in map(found.read, range(8))} == {(f"{k}/{i}.jpeg", k) for k in (0, 2, 10, 999) for i in (0, 1)}


@pytest.mark.parametrize("folder", ["1000", "01", "n01440764", "-1"])
def test_v2_refuses_other_folders(tree, tmp_path, folder):
    with pytest.raises(UserError, match="folders 0 to 999"):
        prepare.main(["imagenet_v2/topimages", f"--source={tree('x', ['3', folder])}", f"--data_dir={tmp_path}"])


def test_a_has_the_classes_that_it_shows_and_may_bring_a_readme(tree, tmp_path):
    source = tree("imagenet-a", [WNIDS[6], WNIDS[999], WNIDS[13]])
    (source / "README.txt").write_text("Natural adversarial examples")
    found = open_source(prepared(tmp_path, "imagenet_a", source), "imagenet_a", "test")
    assert found.classes == tuple(classes.readable([WNIDS[6], WNIDS[13], WNIDS[999]]))
    assert sorted(found.read(i).label for i in range(6)) == [0, 0, 1, 1, 2, 2]


def test_a_folder_that_is_no_class_of_imagenet(tree, tmp_path):
    with pytest.raises(UserError, match="n99999999, which is none of ImageNet's"):
        prepare.main(["imagenet_r", f"--source={tree('x', [WNIDS[0], 'n99999999'])}", f"--data_dir={tmp_path}"])


def test_the_classes_of_a_and_r_are_among_imagenets_in_its_order(timm):
    """As timm lists them; so labels of a set prepared from their folders are places among those indices."""
    import importlib.resources

    for name in ("imagenet_a", "imagenet_r"):
        files = [importlib.resources.files("timm.data._info") / f"{name}_{what}.txt" for what in ("synsets", "indices")]
        synsets, indices = (file.read_text().split() for file in files)
        assert synsets == sorted(synsets)
        assert [WNIDS.index(wnid) for wnid in synsets] == list(map(int, indices))
        assert len(synsets) == papers.SETS[name].classes


@pytest.mark.parametrize("kind", ["tree", "tar"])
def test_c_is_a_data_set_for_each_corruption_and_severity(tree, tmp_path, kind, make_tar):
    """Extra corruptions are not counted, and a tar may hold them all in one folder."""
    folders = [f"{c}/{WNIDS[k]}" for c in ("snow/1", "snow/5", "spatter/1") for k in (7, 3)]
    source = tree("ImageNet-C", folders)
    if kind == "tar":
        files = {f"weather/{p.relative_to(source)}": p.read_bytes() for p in sorted(source.rglob("*.jpeg"))}
        source = tmp_path / "weather.tar"
        make_tar(source, files)
    data_dir = prepared(tmp_path, "imagenet_c", source)
    assert sorted(p.name for p in (data_dir / "imagenet_c").iterdir() if p.is_dir()) == ["snow_1", "snow_5"]
    found = open_source(data_dir, "imagenet_c/snow_5", "test")
    assert len(found.classes) == 1000
    shown = sorted((r.name, r.label) for r in map(found.read, range(4)))
    assert shown == [(f"{WNIDS[k]}/{i}.jpeg", k) for k in (3, 7) for i in (0, 1)]


def test_what_is_no_imagenet_c(tree, tmp_path, make_tar):
    with pytest.raises(UserError, match="none of the corruptions that count"):
        prepare.main(["imagenet_c", f"--source={tree('x', ['spatter/1/' + WNIDS[0]])}", f"--data_dir={tmp_path}"])
    make_tar(tmp_path / "x.tar", {"snow/6/n01440764/a.jpeg": b"x"})
    with pytest.raises(UserError, match="no CORRUPTION/SEVERITY/WNID/IMAGE"):
        prepare.main(["imagenet_c", f"--source={tmp_path / 'x.tar'}", f"--data_dir={tmp_path}"])


def test_there_are_six_sets_and_seventy_five_corrupted_ones():
    assert len(papers.SETS) == 6 + 75
    assert len(papers.TO_PREPARE) == 7
    assert list(suite.ALEXNET) == list(papers.CORRUPTIONS)
