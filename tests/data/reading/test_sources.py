import concurrent.futures
import dataclasses
import json
import multiprocessing
import pathlib
import threading

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from imagenet_jax.data.reading import sources
from imagenet_jax.data.reading.sources import ExampleRecords, find, open_source
from imagenet_jax.errors import RunError, UserError


def example(**features):
    """A serialized tf.train.Example, made by protobuf: lists of bytes, ints or floats."""
    message = tf_example_pb2.Example()
    for name, values in features.items():
        feature = message.features.feature[name]
        kind = {bytes: feature.bytes_list, int: feature.int64_list, float: feature.float_list}[type(values[0])] if values else None
        if kind is not None:
            kind.value.extend(values)
    return message.SerializeToString()


def test_a_source_holds_every_file_as_it_was(pets):
    data_dir, tree = pets
    source = open_source(data_dir, "pets", "train")
    assert (source.dataset, source.version, source.split, source.classes) == ("pets", "1.0.0", "train", ("cat", "dog"))
    assert len(source) == 20
    records = [source.read(i) for i in range(20)]
    assert len({r.name for r in records}) == 20
    for record in records:
        assert record.image == (tree / "train" / record.name).read_bytes()
        assert source.classes[record.label] == record.name.split("/")[0]


@pytest.mark.parametrize("index", [-1, 20, 10**12])
def test_reading_past_the_end_is_an_index_error(pets, index):
    with pytest.raises(IndexError, match="of 20"):
        open_source(pets[0], "pets", "train").read(index)


@pytest.mark.parametrize(
    ("split", "ids"),
    [
        ("train[:7]", range(7)),
        ("train[50%:]", range(10, 20)),
        ("train[-2:]", range(18, 20)),
        ("train[15:]+train[:2]", [*range(15, 20), 0, 1]),
    ],
)
def test_split_expressions(pets, split, ids):
    whole, part = open_source(pets[0], "pets", "train"), open_source(pets[0], "pets", split)
    assert [part.read(i) for i in range(len(part))] == [whole.read(i) for i in ids]
    assert part.split == split


def test_splits_add_up(pets):
    parts = [open_source(pets[0], "pets", split) for split in ("train", "validation")]
    both = open_source(pets[0], "pets", "train+validation")
    assert [both.read(i) for i in range(len(both))] == [p.read(i) for p in parts for i in range(len(p))]


@pytest.mark.parametrize("split", ["trian", "", "train[", "train[abc]", "train[:999]", "train[:200%]"])
def test_a_split_that_is_not_there_names_those_that_are(pets, split):
    with pytest.raises(UserError, match=r"no split .* It has: train \(20\), validation \(6\)"):
        open_source(pets[0], "pets", split)


@pytest.mark.parametrize("split", ["train[:0]", "train[9:3]"])
def test_an_empty_split_is_refused(pets, split):
    with pytest.raises(UserError, match="is empty"):
        open_source(pets[0], "pets", split)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("birds", ["birds is not in", "prepare folder --name=birds", "Prepared there: pets"]),
        ("imagenet2012", ["python -m imagenet_jax.prepare imagenet2012 --manual_dir", "Prepared there: pets"]),
        ("imagenet2012:5.1.0", ["python -m imagenet_jax.prepare imagenet2012 --manual_dir"]),
        ("digits", ["python -m imagenet_jax.prepare digits --data_dir"]),
        ("pets/large", ["pets/large is not in"]),
        ("pets:2.0.0", ["pets 2.0.0 is not in", "Prepared there: 1.0.0"]),
        ("pets:2", ["'pets:2'", "NAME[/CONFIG][:VERSION]"]),
        ("pets/../x", ["'pets/../x'", "NAME[/CONFIG][:VERSION]"]),
        ("../pets", ["../pets is no folder", "PATH/SPLIT/CLASS/IMAGE"]),
        ("", ["''", "NAME[/CONFIG][:VERSION]"]),
    ],
)
def test_a_data_set_that_is_not_there_says_what_makes_it(pets, dataset, words):
    with pytest.raises(UserError) as error:
        open_source(pets[0], dataset, "train")
    for word in words:
        assert word in str(error.value)


def test_a_data_directory_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="Nothing is prepared there"):
        open_source(tmp_path / "nowhere", "pets", "train")


def made(*path):
    """A directory that looks prepared, for `find`."""
    directory = pathlib.Path(*map(str, path))
    directory.mkdir(parents=True)
    (directory / "dataset_info.json").write_text("{}")
    return directory


def test_the_newest_version_is_found_by_number_not_by_letter(tmp_path):
    for version in ("5.9.0", "5.10.0", "5.1.0"):
        made(tmp_path, "a", version)
    made(tmp_path, "a", "incomplete.X_6.0.0")
    (tmp_path / "a" / "7.0.0").mkdir()  # begun, never finished
    assert find(tmp_path, "a").name == "5.10.0"
    assert find(tmp_path, "a:5.9.0").name == "5.9.0"


def test_configs(tmp_path):
    one = made(tmp_path, "a", "small", "1.0.0")
    assert find(tmp_path, "a") == find(tmp_path, "a/small") == find(tmp_path, "a/small:1.0.0") == one
    two = made(tmp_path, "a", "large", "1.0.0")
    assert find(tmp_path, "a/large") == two
    with pytest.raises(UserError, match=r"several configs in .*: name a/large or a/small"):
        find(tmp_path, "a")


@pytest.mark.parametrize("config", ["rst", "short256_q90", "max500_q75_rst"])
def test_images_encoded_anew_are_never_taken_for_the_plain_ones(tmp_path, config):
    only = made(tmp_path, "a", config, "1.0.0")
    with pytest.raises(UserError, match=f"only images encoded anew in .*: name a/{config}"):
        find(tmp_path, "a")
    assert find(tmp_path, f"a/{config}") == only
    plain = made(tmp_path, "a", "1.0.0")
    assert find(tmp_path, "a") == plain


def change_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_format_that_cannot_be_read_says_so(copied):
    change_json(copied / "pets" / "1.0.0" / "dataset_info.json", fileFormat="parquet")
    with pytest.raises(UserError, match=r"holds parquet files. What can be read: array_record, tfrecord"):
        open_source(copied, "pets", "train")


@pytest.mark.parametrize("change", [{"fileFormat": "nonsense"}, {"splits": 7}])
def test_metadata_that_are_none_say_so(copied, change):
    change_json(copied / "pets" / "1.0.0" / "dataset_info.json", **change)
    with pytest.raises(UserError, match=r"pets/1.0.0 has metadata that tfds cannot read"):
        open_source(copied, "pets", "train")


def test_a_directory_without_features_says_so(copied):
    (copied / "pets" / "1.0.0" / "features.json").unlink()
    with pytest.raises(UserError, match=r"no features.json: .* before 4.0"):
        open_source(copied, "pets", "train")


def test_file_names_that_lead_out_of_the_directory_are_refused(copied):
    path = copied / "pets" / "1.0.0" / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        split["filepathTemplate"] = "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match="names files outside"):
        open_source(copied, "pets", "train")


def test_the_encoding_is_what_the_metadata_say(copied):
    assert open_source(copied, "pets", "train").encoding == {
        "short_side": None, "max_side": None, "quality": None, "restart_markers": False
    }  # fmt: skip
    change_json(copied / "pets" / "1.0.0" / "metadata.json", encoding={"short_side": 256, "quality": 90})
    encoding = open_source(copied, "pets", "train").encoding
    assert encoding == {"short_side": 256, "max_side": None, "quality": 90, "restart_markers": False}


def test_a_source_goes_to_a_spawned_process(pets):
    source = open_source(pets[0], "pets", "train[3:]")
    source.read(0)  # files are open
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.map(source.read, range(len(source)))
    assert there == [source.read(i) for i in range(len(source))]


def test_a_data_set_without_labels_is_refused(copied):
    path = copied / "pets" / "1.0.0" / "features.json"
    features = json.loads(path.read_text())
    del features["featuresDict"]["features"]["label"]
    path.write_text(json.dumps(features))
    with pytest.raises(UserError, match="no image classification data set: its features are"):
        open_source(copied, "pets", "train")


def test_the_fingerprint_goes_with_the_data_not_the_place(pets, copied):
    first = open_source(pets[0], "pets", "train")
    assert (
        first.fingerprint == open_source(pets[0], "pets", "train").fingerprint == open_source(copied, "pets", "train").fingerprint
    )
    others = [open_source(pets[0], "pets", split).fingerprint for split in ("validation", "train[:10]", "train[10:]")]
    assert len({first.fingerprint, *others}) == 4


def test_the_fingerprint_tells_data_of_the_same_size_apart(pets, prepare, tmp_path):
    # The files have the same names, number and sizes (array_record fills them up to blocks of 64 KB); the pixels differ.
    prepare(tmp_path, seed=1, format="BMP")
    prepare(tmp_path / "again", seed=1, format="BMP")
    prepare(tmp_path / "other", seed=2, format="BMP")
    one, again, other = (open_source(d, "pets", "train") for d in (tmp_path, tmp_path / "again", tmp_path / "other"))
    assert one.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize("damage", ["gone", "torn", "empty"])
def test_a_damaged_data_set_says_so(copied, damage):
    (file,) = (copied / "pets" / "1.0.0").glob("*train.array_record*")
    data = file.read_bytes()
    file.unlink() if damage == "gone" else file.write_bytes(bytes(b ^ 255 for b in data) if damage == "torn" else b"")
    with pytest.raises(UserError, match=r"is damaged: .* Prepare it again"):
        open_source(copied, "pets", "train")


def with_stored(source, stored):
    return dataclasses.replace(source, records=ExampleRecords(stored, ("image", "label", "file_name"), source.split))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"\xff\xff", ["Example 0 of pets, split train", "tf.train.Example"]),
        (example(image=[b"x"]), ["Example 0 of pets", "label"]),
        (example(image=[], label=[1]), ["Example 0 of pets"]),
        (example(image=[b"x"], label=[-1], file_name=[b"cat/1.png"]), ["cat/1.png", "label -1", "2 classes"]),
        (example(image=[b"x"], label=[2]), ["train#0", "label 2", "2 classes"]),
    ],
    ids=["garbage", "no label", "no image", "a label below 0", "a label past the classes"],
)
def test_a_record_that_cannot_be_used_is_named(pets, record, words):
    source = with_stored(open_source(pets[0], "pets", "train"), [record])
    with pytest.raises(RunError) as error:
        source.read(0)
    for word in words:
        assert word in str(error.value)


def test_a_torn_record_is_named(pets):
    class Torn(list):
        def __getitem__(self, index):
            raise RuntimeError("chunk header hash mismatch")

    source = with_stored(open_source(pets[0], "pets", "train"), Torn([b""]))
    with pytest.raises(RunError, match="Example 0 of pets, split train, cannot be read: chunk header hash mismatch"):
        source.read(0)


def test_a_record_without_a_file_name_is_named_by_its_place(pets):
    source = with_stored(open_source(pets[0], "pets", "train"), [example(image=[b"x"], label=[1])])
    assert source.read(0) == sources.Record(b"x", 1, "train#0")


def test_eight_threads_read_the_same_bytes_as_one(pets):
    expected = [open_source(pets[0], "pets", "train").read(i) for i in range(20)]
    source = open_source(pets[0], "pets", "train")  # no file is open yet
    together = threading.Barrier(8)

    def read(seed):
        order = np.random.default_rng(seed).permutation(np.tile(np.arange(20), 10))
        together.wait(timeout=10)
        return all(source.read(int(i)) == expected[i] for i in order)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))
