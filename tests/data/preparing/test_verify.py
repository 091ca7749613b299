import io
import re
import sys
import types

import numpy as np
import pytest
from PIL import Image

import imagenet_jax.data.pixels.jpeg
from imagenet_jax import cli
from imagenet_jax import prepare as command
from imagenet_jax.data import order
from imagenet_jax.data.labels.classes import wnids
from imagenet_jax.data.preparing import prepare, shards
from imagenet_jax.data.preparing.verify import verify
from imagenet_jax.data.reading import sources
from imagenet_jax.data.storage.encoding import Encoding
from imagenet_jax.data.storage.entries import Entries
from imagenet_jax.errors import UserError

MARKED = Encoding(restart_markers=True)


def stand_in(monkeypatch, add_markers):
    stub = types.SimpleNamespace(add_markers=add_markers)
    monkeypatch.setitem(sys.modules, "imagenet_jax.data.pixels.jpeg.restart", stub)
    monkeypatch.setattr(imagenet_jax.data.pixels.jpeg, "restart", stub, raising=False)


def comment(data):
    """Other bytes, the same pixels."""
    return data[:2] + b"\xff\xfe\x00\x06mark" + data[2:]


@pytest.fixture
def tree(tmp_path, make_image):
    """Two classes of six JPEGs and a file that is no image."""
    for i in range(12):
        path = tmp_path / "tree" / ("cat", "dog")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_image(seed=i))
    (tmp_path / "tree" / "cat" / "notes.txt").write_bytes(b"x")
    return tmp_path / "tree"


@pytest.fixture
def pair(tree, tmp_path, monkeypatch):
    """The data directory of `pets`, and of `pets/rst`, marked by a stand-in."""
    stand_in(monkeypatch, comment)
    for encoding in (Encoding(), MARKED):
        prepare.prepare_folder(name="pets", train=tree, data_dir=tmp_path, encoding=encoding)
    return tmp_path


def test_the_same_pixels_in_other_bytes(pair):
    found = verify(pair, "pets/rst", against="pets")
    assert found == ("pets/rst 1.0.0", {"train": 12}, {"train": 12}, [])
    with pytest.raises(UserError, match="are the same data set"):
        verify(pair, "pets", against="pets:1.0.0")


def test_order_does_not_matter(pair, tree):
    prepare.prepare_folder(name="pets", train=tree, data_dir=pair, encoding=MARKED, shuffle=False, overwrite=True)
    assert verify(pair, "pets/rst", against="pets") == ("pets/rst 1.0.0", {"train": 12}, {"train": 12}, [])


def test_one_pixel_that_differs_by_one_is_found_and_named(tree, tmp_path, monkeypatch, make_image):
    victim = make_image(seed=5)

    def lossy(data):
        if data != victim:
            return comment(data)
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image).copy()
        pixels[3, 4, 1] ^= 1
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    stand_in(monkeypatch, lossy)
    for encoding in (Encoding(), MARKED):
        prepare.prepare_folder(name="pets", train=tree, data_dir=tmp_path, encoding=encoding)
    assert verify(tmp_path, "pets/rst", against="pets").faults == [("train/dog/5.jpg", "1 values differ, by up to 1")]


def test_images_classes_and_splits_that_only_one_has(pair, tree, make_image):
    (tree / "cat" / "0.jpg").rename(tree / "cat" / "new.jpg")
    (tree / "cat" / "2.jpg").rename(tree / "dog" / "2.jpg")
    prepare.prepare_folder(name="pets", source=tree, validation_share=0.0, data_dir=pair, overwrite=True)
    names = {name for name, what in verify(pair, "pets/rst", against="pets").faults if what == "only in one of the two"}
    assert names == {"train/cat/0.jpg", "train/cat/new.jpg", "train/cat/2.jpg", "train/dog/2.jpg"}
    prepare.prepare_folder(name="pets", train=tree, validation=tree, data_dir=pair, overwrite=True)
    assert ("validation", "only in one of the two") in verify(pair, "pets/rst", against="pets").faults
    (tree / "emu").mkdir()
    (tree / "emu" / "1.jpg").write_bytes(make_image())
    prepare.prepare_folder(name="pets", train=tree, data_dir=pair, overwrite=True)
    with pytest.raises(UserError, match="different classes"):
        verify(pair, "pets/rst", against="pets")


def test_another_class_is_a_fault(tmp_path, make_image, make_tar):
    names = ["n01440764_1.JPEG", "n01440764_2.JPEG"]
    images = {name: make_image(seed=i) for i, name in enumerate(names)}
    tar = tmp_path / "ILSVRC2012_img_train.tar"
    make_tar(tar, {"n01440764.tar": make_tar(None, images)})
    prepare.prepare_imagenet2012(manual_dir=tmp_path, data_dir=tmp_path)
    make_tar(tar, {f"{wnid}.tar": make_tar(None, {n: images[n]}) for wnid, n in zip(wnids(), names, strict=False)})
    archives = {split: listing.entries for split, listing in prepare.imagenet2012_listings(tmp_path).items()}
    assert verify(tmp_path, "imagenet2012", archives=archives).faults == [("train/n01440764_2.JPEG", "class 0 here, 1 there")]


def test_a_torn_record_is_found_alone_and_in_comparison(tmp_path, monkeypatch, make_image):
    for i in range(40):
        path = tmp_path / "tree" / "cat" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_image(seed=i))
    stand_in(monkeypatch, comment)
    for encoding in (Encoding(), MARKED):
        result = prepare.prepare_folder(name="pets", train=tmp_path / "tree", data_dir=tmp_path, encoding=encoding)
    sampled = order.permute(np.arange(sources.SAMPLE), 40, 0)  # a data set that is torn in these does not open at all
    victim = next(i for i in range(40) if i not in sampled)
    (shard,) = result.directory.glob("*.array_record-*")
    data = bytearray(shard.read_bytes())
    data[[match.start() for match in re.finditer(b"mark", data)][victim] + 200] ^= 255
    shard.write_bytes(data)
    for found in (verify(tmp_path, "pets/rst"), verify(tmp_path, "pets/rst", against="pets")):
        assert [name for name, what in found.faults if "cannot be read" in what] == [f"train/#{victim}"]


def test_a_record_that_is_no_image_is_found(tree, tmp_path, monkeypatch, make_image):
    victim = make_image(seed=5)
    stand_in(monkeypatch, lambda data: data[:300] if data == victim else data)
    prepare.prepare_folder(name="pets", train=tree, data_dir=tmp_path, encoding=MARKED)
    (name, what), *others = verify(tmp_path, "pets/rst").faults
    assert (name, others) == ("train/dog/5.jpg", [])
    assert "does not decode" in what


def test_files_must_hold_as_many_records_as_the_metadata_say(pair):
    path = pair / "pets" / "1.0.0" / "dataset_info.json"
    path.write_text(path.read_text().replace('"12"', '"11"'))
    assert verify(pair, "pets").faults == [("pets-train.array_record-00000-of-00001", "12 records, where the metadata say 11")]


def test_what_was_reencoded_cannot_be_compared(tree, tmp_path):
    small = Encoding(short_side=16, quality=90)
    result = prepare.prepare_folder(name="pets", train=tree, data_dir=tmp_path, encoding=small)
    assert result.name == "pets/short16_q90"
    assert verify(tmp_path, result.name).faults == []
    with pytest.raises(UserError, match="differ from the originals by design"):
        verify(tmp_path, result.name, archives={"train": Entries()})
    prepare.prepare_folder(name="pets", train=tree, data_dir=tmp_path)
    for names in (("pets", result.name), (result.name, "pets")):
        with pytest.raises(UserError, match=f"{result.name} were re-encoded"):
            verify(tmp_path, names[0], against=names[1])


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_command_compares_with_the_official_tars(tmp_path, make_image, make_tar, monkeypatch, capsys, shuffle):
    images = {f"n01440764_{i}.JPEG": make_image(seed=i) for i in range(5)}
    images |= {"n01440764_10.JPEG": make_image("JPEG", "CMYK"), "n01440764_11.JPEG": make_image("PNG"), "bad.JPEG": b"no"}
    make_tar(tmp_path / "ILSVRC2012_img_train.tar", {"n01440764.tar": make_tar(None, images)})
    stand_in(monkeypatch, comment)
    where = [f"--manual_dir={tmp_path}", f"--data_dir={tmp_path}"]
    options = ["--restart_markers"] if shuffle else ["--restart_markers", "--no_shuffle"]
    assert command.main(["imagenet2012", *options, *where]) == cli.PARTLY
    assert "imagenet2012/rst 5.1.0 is prepared" in capsys.readouterr().out
    assert command.main(["verify", "imagenet2012/rst", *where]) == cli.FINISHED
    output = capsys.readouterr().out
    assert "7 images compared with" in output
    assert "; 7 hold the same pixels in other bytes" in output
    assert f"has exactly the pixels of {tmp_path}" in output
    images["n01440764_3.JPEG"] = make_image(seed=77)
    make_tar(tmp_path / "ILSVRC2012_img_train.tar", {"n01440764.tar": make_tar(None, images)})
    assert command.main(["verify", "imagenet2012/rst", *where]) == cli.FAILED
    output = capsys.readouterr().out
    assert "train/n01440764_3.JPEG: " in output
    assert "imagenet2012/rst 5.1.0 DIFFERS" in output


def test_the_command_compares_with_the_archive_of_imagenet21k(tmp_path, make_image, make_tar, monkeypatch, capsys):
    files = {f"n00004475_{i}.JPEG": make_image(seed=i) for i in range(20)}
    make_tar(tmp_path / "x.tar", {"n00004475.tar": make_tar(None, files)})
    stand_in(monkeypatch, comment)
    where = [f"--source={tmp_path / 'x.tar'}", f"--data_dir={tmp_path}"]
    assert command.main(["imagenet21k", "--restart_markers", *where]) == cli.FINISHED
    assert command.main(["verify", "imagenet21k/rst", *where]) == cli.FINISHED
    assert "validation          2 images compared with" in capsys.readouterr().out
    with pytest.raises(UserError, match="--manual_dir is of imagenet2012"):
        command.main(["verify", "imagenet21k/rst", "--manual_dir=x", f"--data_dir={tmp_path}"])


def test_many_shards(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "shard_count", lambda size, images: 3)
    prepare.prepare_folder(name="pets", train=tree, data_dir=tmp_path)
    assert verify(tmp_path, "pets", jobs=3) == ("pets 1.0.0", {"train": 12}, {}, [])


@pytest.mark.slow
def test_real_markers_on_real_photographs(shared_data, tmp_path, capsys):
    where = [f"--manual_dir={shared_data / 'ilsvrc_sample'}", f"--data_dir={tmp_path}"]
    assert command.main(["imagenet2012", "--restart_markers", *where]) == cli.FINISHED
    assert "unmarked" not in capsys.readouterr().out
    assert command.main(["verify", "imagenet2012/rst", *where]) == cli.FINISHED
    output = capsys.readouterr().out
    assert "503 hold the same pixels in other bytes" in output
    assert "100 hold the same pixels in other bytes" in output
