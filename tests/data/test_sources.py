import concurrent.futures
import dataclasses
import json
import pathlib
import shutil
import threading

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from imagenet_jax.data import sources
from imagenet_jax.data.prepare import prepare_folder
from imagenet_jax.data.sources import find, open_source, parse_example
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


def field(number, payload):
    """A protobuf field of bytes, or of an int as a varint."""
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def by_hand(name, kind, content):
    return field(1, field(1, field(1, name) + field(2, field(kind, content))))


def test_parse_reads_what_protobuf_writes():
    long = bytes(range(256)) * 1000
    parsed = parse_example(example(image=[long], label=[7], file_name=[b"a/b.jpg"]))
    assert parsed == {"image": [long], "label": [7], "file_name": [b"a/b.jpg"]}
    assert type(parsed["image"][0]) is bytes


@pytest.mark.parametrize("values", [[0], [1, 2, 3], [127, 128, 300], [-1], [-(2**63), 2**63 - 1], list(range(-500, 500))])
def test_parse_reads_packed_and_unpacked_integers(values):
    assert parse_example(example(x=values)) == {"x": values}  # protobuf packs
    unpacked = b"".join(field(1, v % 2**64) for v in values)
    assert parse_example(by_hand(b"x", 3, unpacked)) == {"x": values}
    assert parse_example(by_hand(b"x", 3, field(1, 2**65 + 5))) == {"x": [5]}  # as protobuf: what is past 64 bits falls away


def test_parse_reads_empty_and_many_values_and_leaves_floats_out():
    parsed = parse_example(example(none=[], blank=[b""], two=[b"a", b"bc"], floats=[1.0, 2.0], ünïcode=[1]))
    assert parsed == {"none": [], "blank": [b""], "two": [b"a", b"bc"], "floats": [], "ünïcode": [1]}
    assert parse_example(b"") == {}


@pytest.mark.parametrize(
    "data",
    [
        by_hand(b"x", 1, field(1, b"abc"))[:-1],  # cut off
        field(1, field(1, field(2, field(1, b"no name")))),
        field(1, 5),
        field(1, field(1, 5)),
        field(1, field(1, field(1, b"x") + field(2, 5))),
        field(1, field(1, field(1, 7) + field(2, b""))),
        by_hand(b"x", 1, field(1, 2**60)),  # a number where bytes belong
        by_hand(b"\xff", 3, field(1, 1)),  # a name that is not UTF-8
        b"\x0d\x00\x00\x00\x00",  # wire type 5
        b"\x09" + bytes(8),  # wire type 1
        b"\x0b",  # wire type 3
        b"\x0a" + b"\xff" * 11,  # a length without end
        by_hand(b"x", 3, b"\x08" + b"\x80" * 10 + b"\x01"),  # a number of eleven bytes
        b"\xff" * 200_000,
        b"\x0a",
    ],
)
def test_parse_of_what_is_no_example_is_a_value_error(data):
    with pytest.raises(ValueError, match="Example"):
        parse_example(data)


def test_parse_of_any_damage_is_at_worst_a_value_error():
    random = np.random.default_rng(0)
    good = example(image=[bytes(range(200))], label=[3, -1, 2**40], file_name=[b"x.jpg"], f=[1.5])
    refused = 0
    for _ in range(6000):
        data = bytearray(good)
        for _ in range(random.integers(1, 4)):
            at = random.integers(len(data))
            match random.integers(3):
                case 0:
                    data[at] = random.integers(256)
                case 1:
                    del data[at : at + random.integers(1, 30)]
                case 2:
                    data[at:at] = random.bytes(random.integers(1, 12))
            data = data or bytearray(b"\x0a")
        try:
            parsed = parse_example(bytes(data))
        except ValueError:
            refused += 1
            continue
        assert all(isinstance(v, bytes | int) for values in parsed.values() for v in values)
    assert refused > 1000


# ---- data sets on disk


@pytest.fixture(scope="module")
def prepare(tmp_path_factory, make_image):
    """prepare(data_dir, name, images, seed): a data set of two classes, cat and dog, in train and validation."""

    def write(data_dir, name="pets", images=10, seed=0, **kind):
        tree = tmp_path_factory.mktemp("tree")
        for split, count in (("train", images), ("validation", 3)):
            for label in ("cat", "dog"):
                (tree / split / label).mkdir(parents=True)
                for i in range(count):
                    data = make_image(**{"format": "PNG", **kind}, seed=1000 * seed + i + 100 * (label == "dog"))
                    (tree / split / label / f"{i}.png").write_bytes(data)
        prepare_folder(name=name, data_dir=data_dir, train=tree / "train", validation=tree / "validation", jobs=1)
        return tree

    return write


@pytest.fixture(scope="module")
def pets(prepare, tmp_path_factory):
    """(data directory with the data set 'pets', the tree that it was made from); read only."""
    data_dir = tmp_path_factory.mktemp("data")
    return data_dir, prepare(data_dir)


@pytest.fixture
def copied(pets, tmp_path):
    """A copy of the data directory that a test may change."""
    return pathlib.Path(shutil.copytree(pets[0], tmp_path / "data"))


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
        ("../pets", ["'../pets'", "NAME[/CONFIG][:VERSION]"]),
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
    with pytest.raises(UserError, match="name one of a/large, a/small"):
        find(tmp_path, "a")


def change_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_directory_of_tfrecords_says_what_to_do(copied):
    change_json(copied / "pets" / "1.0.0" / "dataset_info.json", fileFormat="tfrecord")
    with pytest.raises(UserError) as error:
        open_source(copied, "pets", "train")
    for word in ("tfrecord", "convert_format", "--out_file_format=array_record", "imagenet_jax.prepare"):
        assert word in str(error.value)


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
    source = dataclasses.replace(open_source(pets[0], "pets", "train"), records=[record])
    with pytest.raises(RunError) as error:
        source.read(0)
    for word in words:
        assert word in str(error.value)


def test_a_torn_record_is_named(pets):
    class Torn(list):
        def __getitem__(self, index):
            raise RuntimeError("chunk header hash mismatch")

    source = dataclasses.replace(open_source(pets[0], "pets", "train"), records=Torn([b""]))
    with pytest.raises(RunError, match="Example 0 of pets, split train, cannot be read: chunk header hash mismatch"):
        source.read(0)


def test_a_record_without_a_file_name_is_named_by_its_place(pets):
    source = dataclasses.replace(open_source(pets[0], "pets", "train"), records=[example(image=[b"x"], label=[1])])
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
