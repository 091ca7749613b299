import fcntl
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from imagenet_jax.data.preparing import prepare, shards, staging
from imagenet_jax.data.preparing.builders import imagenet2012
from imagenet_jax.data.storage.encoding import Encoding
from imagenet_jax.errors import RunError, UserError

READER = """
import json, sys
import tensorflow_datasets as tfds
builder = tfds.builder(sys.argv[1], data_dir=sys.argv[2])
source = builder.as_data_source(sys.argv[3], decoders={"image": tfds.decode.SkipDecoding()})
label = builder.info.features["label"].int2str
rows = {r["file_name"].decode(): [label(int(r["label"])), len(r["image"])] for r in source}
print(json.dumps([str(builder.info.version), builder.info.file_format.value, rows, "tensorflow" in sys.modules]))
"""


def stored(directory, split):
    """{file name: (class name, bytes)} of a prepared split, by tfds itself."""
    builder = tfds.builder_from_directory(directory)
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    label = builder.info.features["label"].int2str
    return {row["file_name"].decode(): (label(int(row["label"])), row["image"]) for row in source}


def write_tree(root, contents):
    for name, data in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture
def tars(tmp_path, make_image, make_tar):
    """A manual_dir with small tars in the official shape, a CMYK and a PNG file in the train tar, and what they hold."""
    train = {
        "n01440764": {"n01440764_1.JPEG": make_image(seed=1), "n01440764_2.JPEG": make_image("JPEG", "CMYK", seed=2)},
        "n15075141": {"n15075141_9.JPEG": make_image("JPEG", "L", seed=3), "n15075141_7.JPEG": make_image("PNG", seed=4)},
    }
    # Not a prefix of the official names: by position, the catalogue's builder would label these as 1 and 2.
    validation = {"ILSVRC2012_val_00000002.JPEG": make_image(seed=5), "ILSVRC2012_val_00050000.JPEG": make_image(seed=6)}
    manual = tmp_path / "manual"
    make_tar(manual / "ILSVRC2012_img_train.tar", {f"{wnid}.tar": make_tar(None, files) for wnid, files in train.items()})
    make_tar(manual / "ILSVRC2012_img_val.tar", validation)
    return manual, train, validation


def test_imagenet2012_is_stored_as_it_came_but_for_what_is_no_rgb_jpeg(tars, tmp_path):
    manual, train, validation = tars
    result = prepare.prepare_imagenet2012(manual_dir=manual, data_dir=tmp_path)
    assert result.directory == tmp_path / "imagenet2012" / "5.1.0"
    assert result.images == {"train": 4, "validation": 2}
    assert dict(result.rewritten) == {"train/n01440764_2.JPEG": "CMYK JPEG", "train/n15075141_7.JPEG": "RGB PNG"}
    assert (len(result.classes), len(result.absent["train"]), result.left_out) == (1000, 998, [])
    found = stored(result.directory, "train")
    for wnid, files in train.items():
        for name, data in files.items():
            assert found[name][0] == wnid
            if f"train/{name}" in dict(result.rewritten):
                with Image.open(io.BytesIO(found[name][1])) as image:
                    assert (image.format, image.mode) == ("JPEG", "RGB")
            else:
                assert found[name][1] == data
    official = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    expected = {name: official[int(name[15:23]) - 1] for name in validation}
    assert {name: row[0] for name, row in stored(result.directory, "validation").items()} == expected


def test_a_fresh_process_reads_it_through_the_catalogue_without_tensorflow(tars, tmp_path):
    result = prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path)
    command = [sys.executable, "-c", READER, "imagenet2012", str(tmp_path), "validation"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = {name: [label, len(data)] for name, (label, data) in stored(result.directory, "validation").items()}
    assert json.loads(output.splitlines()[-1]) == ["5.1.0", "array_record", rows, False]


def test_features_are_those_of_the_catalogue(tars, tmp_path):
    result = prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path)
    features = tfds.builder_from_directory(result.directory).info.features
    names = tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()
    catalogue = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=names),
            "file_name": tfds.features.Text(),
        }
    )
    assert features.to_json() == catalogue.to_json()
    assert features["label"].names == names


@pytest.mark.parametrize(("missing", "split"), [("train", "validation"), ("validation", "train")])
def test_either_tar_alone_is_enough(tars, tmp_path, missing, split):
    (tars[0] / imagenet2012.TARS[missing]).unlink()
    assert list(prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path).images) == [split]


def test_both_tars_missing_says_which_from_where_and_whereto(tmp_path):
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar nor ILSVRC2012_img_val\.tar.*manual.*https://image-net\.org"):
        prepare.prepare_imagenet2012(manual_dir=tmp_path / "manual", data_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_tar_of_other_things_is_refused(tars, tmp_path, make_tar):
    make_tar(tars[0] / "ILSVRC2012_img_train.tar", {"n00000001.tar": make_tar(None, {"a.JPEG": b"1"})})
    with pytest.raises(UserError, match=r"holds 'n00000001\.tar'"):
        prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path)
    make_tar(tars[0] / "ILSVRC2012_img_train.tar", {"n01440764.tar": b"no tar" * 500})
    with pytest.raises(UserError, match=r"n01440764\.tar in .*is not a whole"):
        prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path)
    assert not (tmp_path / "imagenet2012").exists()


def test_bad_images_are_left_out_and_named_in_result_and_metadata(tars, tmp_path, make_image, make_tar):
    whole = make_image(size=(100, 80))
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    contents = {
        "ILSVRC2012_val_00000001.JPEG": whole,
        "ILSVRC2012_val_00000003.JPEG": whole[:-200],
        "ILSVRC2012_val_00000004.JPEG": b"<html>",
        "ILSVRC2012_val_00000005.JPEG": link,
        "ILSVRC2012_val_00050001.JPEG": whole,
        "holiday.JPEG": whole,
    }
    make_tar(tars[0] / "ILSVRC2012_img_val.tar", contents)
    result = prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path)
    assert stored(result.directory, "validation") == {"ILSVRC2012_val_00000001.JPEG": ("n01751748", whole)}
    reasons = dict(result.left_out)
    assert set(reasons) == {f"validation/{name}" for name in contents} - {"validation/ILSVRC2012_val_00000001.JPEG"}
    assert "truncated" in reasons["validation/ILSVRC2012_val_00000003.JPEG"]
    assert "no image" in reasons["validation/ILSVRC2012_val_00000004.JPEG"]
    assert "link" in reasons["validation/ILSVRC2012_val_00000005.JPEG"]
    assert "label unknown" in reasons["validation/holiday.JPEG"]
    metadata = tfds.builder_from_directory(result.directory).info.metadata
    assert {name for name, _ in metadata["left_out"]} == set(reasons)


def test_a_second_call_does_nothing_and_says_so(tars, tmp_path):
    first = prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path)
    stamp = (first.directory / "dataset_info.json").stat().st_mtime_ns
    again = prepare.prepare_imagenet2012(manual_dir=tmp_path / "gone", data_dir=tmp_path)
    assert again.existed
    assert (first.directory / "dataset_info.json").stat().st_mtime_ns == stamp
    assert (again.images, again.rewritten, again.absent) == (first.images, first.rewritten, first.absent)
    (tars[0] / "ILSVRC2012_img_val.tar").unlink()
    redone = prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path, overwrite=True)
    assert redone.images == {"train": 4}
    assert not redone.existed


def test_what_is_there_and_not_ours_is_not_taken_for_prepared(tmp_path, tars):
    directory = tmp_path / "imagenet2012" / "5.1.0"
    directory.mkdir(parents=True)
    with pytest.raises(UserError, match="is no prepared data set"):
        prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path)
    result = prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path, overwrite=True)
    info = (directory / "dataset_info.json").read_text()
    (directory / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="as tfrecord files"):
        prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path)
    assert result.images["train"] == 4


def photos(make_image, classes=("cat", "dog"), count=20):
    return {f"{label}/{i}.jpg": make_image(seed=1000 * k + i) for k, label in enumerate(classes) for i in range(count)}


def test_order_is_tfds_own_whatever_the_order_and_form_of_the_input(tmp_path, make_image, make_tar):
    contents = photos(make_image)
    train = write_tree(tmp_path / "tree", contents)
    make_tar(tmp_path / "x.tar", dict(reversed(contents.items())))

    class Catalogue(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """The same images through tfds' own writer and shuffle."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = {"image": tfds.features.Image(), "file_name": tfds.features.Text()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(image))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for name, data in contents.items():
                yield name, {"image": io.BytesIO(data), "file_name": name}

    builder = Catalogue(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare(download_dir=tmp_path / "downloads")
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    expected = [row["file_name"].decode() for row in source]
    assert expected != sorted(expected)
    for name, path in (("tree", train), ("tar", tmp_path / "x.tar")):
        result = prepare.prepare_folder(name=f"by_{name}", train=path, data_dir=tmp_path, jobs=3)
        assert list(stored(result.directory, "train")) == expected
        assert {n: d for n, (_, d) in stored(result.directory, "train").items()} == contents


def test_no_shuffle_keeps_the_order_of_the_files(tmp_path, make_image, make_tar):
    contents = dict(reversed(photos(make_image).items()))
    make_tar(tmp_path / "x.tar", contents)
    result = prepare.prepare_folder(name="plain", train=tmp_path / "x.tar", data_dir=tmp_path, shuffle=False)
    assert list(stored(result.directory, "train")) == list(contents)


def test_many_shards_hold_every_image_once(tmp_path, make_image, monkeypatch):
    monkeypatch.setattr(shards, "shard_count", lambda size, images: 7)
    contents = photos(make_image)
    result = prepare.prepare_folder(name="sharded", train=write_tree(tmp_path / "tree", contents), data_dir=tmp_path)
    assert len(list(result.directory.glob("*.array_record-*-of-00007"))) == 7
    assert {name: data for name, (_, data) in stored(result.directory, "train").items()} == contents


def test_folder_splits_a_source_by_hash(tmp_path, make_image):
    contents = photos(make_image, count=60)
    source = write_tree(tmp_path / "photos", contents)
    result = prepare.prepare_folder(name="birds", source=source, validation_share=0.25, data_dir=tmp_path)
    train, validation = (set(stored(result.directory, split)) for split in ("train", "validation"))
    assert train | validation == set(contents)
    assert not train & validation
    assert 15 <= len(validation) <= 45


def test_folder_keeps_png_and_rewrites_what_not_every_decoder_reads(tmp_path, make_image):
    kept = {"cat/1.jpg": make_image(), "cat/2.png": make_image("PNG", "RGBA"), "dog/misnamed.jpg": make_image("PNG")}
    changed = {"dog/1.gif": make_image("GIF"), "dog/2.webp": make_image("WEBP"), "dog/3.jpg": make_image("JPEG", "CMYK")}
    tree = write_tree(tmp_path / "tree", {**kept, **changed, "cat/notes.txt": b"my cats"})
    result = prepare.prepare_folder(name="mixed", train=tree, data_dir=tmp_path)
    found = {name: data for name, (_, data) in stored(result.directory, "train").items()}
    assert {name: found[name] for name in kept} == kept
    assert {name for name, _ in result.rewritten} == {f"train/{name}" for name in changed}
    assert [found[name][1:4] for name in changed] == [b"PNG", b"PNG", b"\xd8\xff\xe0"]
    assert [name for name, _ in result.left_out] == ["train/cat/notes.txt"]


def test_classes_must_agree(tmp_path, make_image):
    train = write_tree(tmp_path / "train", photos(make_image, ("cat", "dog", "emu"), 1))
    validation = write_tree(tmp_path / "validation", photos(make_image, ("dog", "cat"), 1))
    result = prepare.prepare_folder(name="ok", train=train, validation=validation, data_dir=tmp_path)
    assert result.classes == ("cat", "dog", "emu")
    assert result.absent == {"train": [], "validation": ["emu"]}
    write_tree(validation, {"Dog/1.jpg": make_image()})
    with pytest.raises(UserError, match=r"does not have: Dog\."):
        prepare.prepare_folder(name="bad", train=train, validation=validation, data_dir=tmp_path)


@pytest.mark.parametrize("name", ["My_Birds", "7birds", "a/b", "..", "imagenet2012", "imagenet21k", "digits", "downloads", ""])
def test_names_that_cannot_be(tmp_path, name):
    with pytest.raises(UserError, match="cannot name a data set"):
        prepare.prepare_folder(name=name, train=tmp_path, data_dir=tmp_path)


def test_a_split_of_which_nothing_is_left_is_an_error_and_leaves_nothing(tmp_path, make_image):
    tree = write_tree(tmp_path / "tree", {"cat/1.jpg": b"no", "dog/2.jpg": b"no"})
    with pytest.raises(UserError, match=r"Not one image of the train split.*no image"):
        prepare.prepare_folder(name="empty", train=tree, data_dir=tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_the_same_name_twice_is_an_error(tmp_path, make_image, make_tar):
    make_tar(tmp_path / "x.tar", {"cat/1.jpg": make_image(), "./cat/1.jpg": make_image()})
    with pytest.raises(UserError, match=r"cat/1\.jpg twice"):
        prepare.prepare_folder(name="twice", train=tmp_path / "x.tar", data_dir=tmp_path)


def test_too_little_space_is_noticed_before_writing(tars, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"has 0\.00 GB free; the data set needs 0\.02 GB"):
        prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path)
    assert not (tmp_path / "imagenet2012").exists()


@pytest.fixture
def broken_off(tmp_path, make_image, monkeypatch):
    """A tree of 40 images, and what a disk has left of it that was full after 14: the first of four shards."""
    monkeypatch.setattr(shards, "shard_count", lambda size, images: 4)
    tree = write_tree(tmp_path / "tree", photos(make_image))

    class Full(shards.ArrayRecordWriter):
        written = 0

        def write(self, record):
            Full.written += 1
            if Full.written == 15:
                raise RuntimeError("write() failed: No space left on device; writing x")
            super().write(record)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "ArrayRecordWriter", Full)
        with pytest.raises(RunError, match=r"is full.*goes on where it stopped"):
            prepare.prepare_folder(name="x", train=tree, data_dir=tmp_path)
    kept = {path.name for path in (tmp_path / "x" / ".partial-1.0.0").glob("*.json")}
    assert kept == {"x-train.array_record-00000-of-00004.json"}
    return tree


def test_after_a_full_disk_the_same_command_goes_on(broken_off, tmp_path, make_image, caplog):
    result = prepare.prepare_folder(name="x", train=broken_off, data_dir=tmp_path)
    assert {name: data for name, (_, data) in stored(result.directory, "train").items()} == photos(make_image)
    assert caplog.text == ""


def test_what_is_left_of_another_input_is_not_gone_on_with(broken_off, tmp_path, make_image, caplog):
    write_tree(broken_off, {"cat/0.jpg": make_image(seed=12345)})
    result = prepare.prepare_folder(name="x", train=broken_off, data_dir=tmp_path)
    assert "is of another input or other options: it is removed" in caplog.text
    assert stored(result.directory, "train")["cat/0.jpg"][1] == make_image(seed=12345)


def test_other_options_are_not_gone_on_with(broken_off, tmp_path, make_image, caplog):
    result = prepare.prepare_folder(name="x", train=broken_off, data_dir=tmp_path, shuffle=False)
    assert "other options" in caplog.text
    assert list(stored(result.directory, "train")) == sorted(photos(make_image))


def test_a_disk_that_is_full_from_the_start_is_left_clean(tars, tmp_path, monkeypatch):
    def full(self, *args):
        raise RuntimeError("write() failed: No space left on device; writing x")

    monkeypatch.setattr(shards.ArrayRecordWriter, "write", full)
    with pytest.raises(RunError, match="is full"):
        prepare.prepare_imagenet2012(manual_dir=tars[0], data_dir=tmp_path)
    assert not (tmp_path / "imagenet2012").exists()


DYING = """
import os, pathlib, sys
from imagenet_jax.data.preparing import prepare, shards
shards.shard_count = lambda size, images: 5
seen = []
def judge(data, **kwargs):
    seen.append(1)
    if len(seen) == int(sys.argv[4]):
        os.kill(os.getpid(), int(sys.argv[3]))
    return original(data, **kwargs)
original, shards.judge = shards.judge, judge
prepare.prepare_folder(name="x", train=pathlib.Path(sys.argv[1]), data_dir=pathlib.Path(sys.argv[2]), jobs=1)
print(len(seen))
"""


def killed(tree, data, signal=9, at=30):
    """A run that gets a signal before it looks at its image number `at`; five shards of eight images."""
    # Where tests run in the background of a shell, SIGINT is ignored from birth.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{DYING}"
    line = [sys.executable, "-c", code, str(tree), str(data), str(signal), str(at)]
    return subprocess.run(line, capture_output=True, text=True)


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("signal", [2, 9])
def test_a_killed_run_goes_on_at_the_next_shard_and_ends_with_the_same_bytes(tmp_path, make_image, signal):
    tree = write_tree(tmp_path / "tree", photos(make_image))
    assert killed(tree, tmp_path / "whole", at=99).stdout == "40\n"
    data = tmp_path / "data"
    assert killed(tree, data, signal).returncode in (-signal, 1, 130)
    partial = data / "x" / ".partial-1.0.0"
    assert not (data / "x" / "1.0.0").exists()
    done = [path.name.removesuffix(".json") for path in partial.glob("*.json")]
    assert 2 <= len(done) <= 3  # 29 images were seen, and up to five are read ahead of the shard
    kept = {name: (partial / "data" / name).stat() for name in done}
    rerun = killed(tree, data, at=99)
    assert rerun.stdout == f"{40 - 8 * len(done)}\n"
    for name, before in kept.items():
        after = (data / "x" / "1.0.0" / name).stat()
        assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert content(data) == content(tmp_path / "whole")
    assert os.listdir(data / "x") == ["1.0.0"]


def test_two_at_once_do_not_remove_each_others_files(tmp_path, make_image):
    tree = write_tree(tmp_path / "tree", photos(make_image, count=1))
    (tmp_path / "x").mkdir()
    holder = os.open(tmp_path / "x", os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match="Another process is preparing"):
            prepare.prepare_folder(name="x", train=tree, data_dir=tmp_path)
    finally:
        os.close(holder)
    assert prepare.prepare_folder(name="x", train=tree, data_dir=tmp_path).images == {"train": 2}


def test_digits_are_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    result = prepare.prepare_digits(tmp_path)
    assert sum(result.images.values()) == 1797
    assert 0.18 < result.images["validation"] / 1797 < 0.22
    assert (result.classes[0], result.classes[9], result.left_out, result.rewritten) == ("zero", "nine", [], [])
    train, validation = (stored(result.directory, split) for split in ("train", "validation"))
    assert not train.keys() & validation.keys()
    images, labels = load_digits(return_X_y=True)
    indices = set()
    for name, (label, data) in {**train, **validation}.items():
        index = int(pathlib.Path(name).stem)
        indices.add(index)
        assert result.classes[labels[index]] == label
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size) == ("PNG", (32, 32))
            small = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX), float) * 16 / 255
        assert np.corrcoef(small.ravel(), images[index])[0, 1] > 0.97
    assert indices == set(range(1797))


def test_digits_without_scikit_learn_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'imagenet_jax\[quickstart\]'"):
        prepare.prepare_digits(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_real_sample(shared_data, tmp_path):
    result = prepare.prepare_imagenet2012(manual_dir=shared_data / "ilsvrc_sample", data_dir=tmp_path)
    assert result.images == {"train": 503, "validation": 100}
    assert (1000 - len(result.absent["train"]), result.left_out) == (501, [])
    assert dict(result.rewritten) == {"train/n01739381_1309.JPEG": "CMYK JPEG", "train/n02105855_2933.JPEG": "RGB PNG"}
    originals = {}
    with tarfile.open(shared_data / "ilsvrc_sample" / "ILSVRC2012_img_train.tar") as outer:
        for member in outer:
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                originals.update({image.name: (member.name[:-4], inner.extractfile(image).read()) for image in inner})
    found = stored(result.directory, "train")
    assert found.keys() == originals.keys()
    assert {n for n in found if found[n] != originals[n]} == {"n01739381_1309.JPEG", "n02105855_2933.JPEG"}


def test_missing_numba_is_noticed_before_the_input_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "check_markers", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare.prepare_imagenet21k(source=tmp_path / "gone", data_dir=tmp_path, encoding=Encoding(restart_markers=True))
    with pytest.raises(UserError, match="does not exist"):
        prepare.prepare_imagenet21k(source=tmp_path / "gone", data_dir=tmp_path)
