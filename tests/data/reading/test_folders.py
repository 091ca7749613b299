import multiprocessing
import os
import pathlib
import shutil

import pytest

from imagenet_jax.data.reading import folders
from imagenet_jax.data.reading.records import AS_THEY_CAME
from imagenet_jax.data.reading.sources import open_source
from imagenet_jax.errors import RunError, UserError

NOWHERE = pathlib.Path("/nonexistent")  # a plain folder is no part of a data directory


@pytest.fixture
def tree(tmp_path):
    """birds/: two classes in train, one of them deep, one in val."""
    root = tmp_path / "birds"
    for name, content in {
        "train/owl/2.jpg": b"owl 2",
        "train/owl/10.jpg": b"owl ten",
        "train/owl/.DS_Store": b"hidden",
        "train/owl/Thumbs.db": b"hidden",
        "train/owl/.cache/3.jpg": b"hidden",
        "train/auk/deep/er/1.png": b"auk 1",
        "train/auk/1.png": b"auk one",
        "train/.git/x": b"hidden",
        "val/owl/é.jpg": b"owl v",
        "README.md": b"a file beside the splits says nothing",
        ".hidden/x/1.jpg": b"hidden",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def contents(source):
    return [source.read(i) for i in range(len(source))]


def test_classes_order_and_bytes(tree):
    source = open_source(NOWHERE, str(tree), "train")
    assert contents(source) == [
        (b"auk one", 0, "auk/1.png"),
        (b"auk 1", 0, "auk/deep/er/1.png"),
        (b"owl ten", 1, "owl/10.jpg"),
        (b"owl 2", 1, "owl/2.jpg"),
    ]
    assert (source.dataset, source.version, source.split, source.classes) == (str(tree), "folder", "train", ("auk", "owl"))
    assert source.encoding == AS_THEY_CAME
    assert source.nbytes == 24


def test_the_training_classes_number_every_split(tree):
    assert contents(open_source(NOWHERE, str(tree), "validation")) == [(b"owl v", 1, "owl/é.jpg")]
    assert open_source(NOWHERE, str(tree), "val").classes == ("auk", "owl")
    shutil.rmtree(tree / "train")
    assert open_source(NOWHERE, str(tree), "val").classes == ("owl",)


def test_a_split_named_exactly_comes_before_its_short_name(tree):
    (tree / "validation" / "auk").mkdir(parents=True)
    (tree / "validation" / "auk" / "7.jpg").write_bytes(b"exact")
    assert contents(open_source(NOWHERE, str(tree), "validation")) == [(b"exact", 0, "auk/7.jpg")]


@pytest.mark.parametrize("how", ["relative", "home", "version"])
def test_the_ways_to_name_a_folder(tree, how, monkeypatch):
    monkeypatch.chdir(tree.parent)
    monkeypatch.setenv("HOME", str(tree.parent))
    name = {"relative": "./birds", "home": "~/birds", "version": f"{tree}:folder"}[how]
    source = open_source(NOWHERE, name, "train")
    assert source.dataset == str(tree)
    assert len(source) == 4


def test_wnids_become_names(tmp_path):
    for wnid in ("n01440764", "n01443537"):
        (tmp_path / "train" / wnid).mkdir(parents=True)
        (tmp_path / "train" / wnid / "1.JPEG").write_bytes(b"x")
    assert open_source(NOWHERE, str(tmp_path), "train").classes == ("tench", "goldfish")


def test_the_fingerprint_goes_with_the_files_not_the_place(tree, tmp_path):
    first = open_source(NOWHERE, str(tree), "train").fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    assert open_source(NOWHERE, str(copy), "train").fingerprint == first
    (copy / "train" / "owl" / "2.jpg").write_bytes(b"owl 3")  # as long as before
    changed = {open_source(NOWHERE, str(copy), "train").fingerprint}
    (copy / "train" / "owl" / "2.jpg").rename(copy / "train" / "owl" / "3.jpg")
    changed.add(open_source(NOWHERE, str(copy), "train").fingerprint)
    (copy / "train" / "owl" / "3.jpg").unlink()
    changed.add(open_source(NOWHERE, str(copy), "train").fingerprint)
    (copy / "train" / "owl").rename(copy / "train" / "ovl")
    changed.add(open_source(NOWHERE, str(copy), "train").fingerprint)
    assert len(changed | {first}) == 5


@pytest.mark.parametrize(
    ("change", "split", "words"),
    [
        (lambda tree: None, "test", r"no split 'test'. Its folders: train, val\."),
        (lambda tree: None, "train[:10%]", r"no split 'train\[:10%\]'.*Only prepared data sets have slices"),
        (lambda tree: None, "..", r"no split '\.\.'"),
        (shutil.rmtree, "train", "is no folder. A plain data set is PATH/SPLIT/CLASS/IMAGE"),
        (lambda tree: (tree / "train" / "1.jpg").touch(), "train", "has 1.jpg beside its class folders"),
        (lambda tree: (tree / "train" / "tit").mkdir(), "train", "class folders without a file: tit"),
        (lambda tree: (tree / "test").mkdir(), "test", "has no class folders"),
        (lambda tree: (tree / "val" / "owl").rename(tree / "val" / "ouzel"), "val", "class folders that .*train lacks: ouzel"),
        (lambda tree: (tree / "train" / "owl" / "9.jpg").symlink_to("gone"), "train", "9.jpg is no file: a broken link"),
        (lambda tree: (tree / "train" / "owl" / "9").symlink_to(tree / "val"), "train", "owl/9 is no file: .*a link to a folder"),
        (lambda tree: os.mkfifo(tree / "train" / "owl" / "9.jpg"), "train", "9.jpg is no file: .*a device"),
    ],
)
def test_what_is_wrong_with_a_folder(tree, change, split, words):
    change(tree)
    with pytest.raises(UserError, match=words):
        open_source(NOWHERE, str(tree), split)


@pytest.mark.parametrize("name", ["train", "train/owl", "train/auk/deep", "train/owl/2.jpg"])
def test_what_may_not_be_read_is_named(tree, name, monkeypatch):
    def refusing(function):
        def refused(path, *args, **kwargs):
            if os.fsdecode(path) == str(tree / name):
                raise PermissionError(13, "Permission denied", os.fsdecode(path))
            return function(path, *args, **kwargs)

        return refused

    monkeypatch.setattr(folders.os, "scandir", refusing(os.scandir))
    monkeypatch.setattr("builtins.open", refusing(open))
    with pytest.raises(UserError, match=f"{tree / name} cannot be read: Permission denied"):
        open_source(NOWHERE, str(tree), "train")


def test_a_class_folder_may_be_a_link(tree):
    (tree / "train" / "tit").symlink_to(tree / "train" / "auk")
    assert [r.name for r in contents(open_source(NOWHERE, str(tree), "train"))][-2:] == ["tit/1.png", "tit/deep/er/1.png"]


def test_links_and_names_that_are_no_utf8(tree):
    (tree / "train" / "owl" / "3.jpg").symlink_to(tree / "train" / "auk" / "1.png")
    path = os.fsencode(tree / "train" / "owl") + b"/\xff.jpg"
    with open(path, "wb") as file:
        file.write(b"odd")
    source = open_source(NOWHERE, str(tree), "train")
    assert contents(source)[-2:] == [(b"auk one", 1, "owl/3.jpg"), (b"odd", 1, "owl/\ufffd.jpg")]


def test_a_file_that_goes_away_is_named(tree):
    source = open_source(NOWHERE, str(tree), "train")
    (tree / "train" / "owl" / "2.jpg").unlink()
    with pytest.raises(RunError, match=r"Example 3 of .*birds, split train, cannot be read: .*2.jpg"):
        source.read(3)


def test_a_source_goes_to_a_spawned_process(tree):
    source = open_source(NOWHERE, str(tree), "train")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(source.read, range(4)) == contents(source)
