import json
import multiprocessing
import os
import pathlib
import shutil

import numpy as np
import pytest

from imagenet_jax.data.reading import tfrecord
from imagenet_jax.data.reading.sources import open_source
from imagenet_jax.errors import RunError, UserError

INDEX = "train.tfrecord_index.npy"


@pytest.fixture
def data_dir(pets_tfrecord, tmp_path, monkeypatch):
    """A data directory that a test may change, and an empty user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return pathlib.Path(shutil.copytree(pets_tfrecord, tmp_path / "data"))


@pytest.fixture
def directory(data_dir):
    return data_dir / "pets" / "1.0.0"


def contents(source):
    return [source.read(i) for i in range(len(source))]


def shard(directory, number=1):
    return directory / f"pets-train.tfrecord-{number:05d}-of-00003"


@pytest.mark.parametrize("split", ["train", "validation", "train[:7]", "train[35%:]", "train[-2:]+validation", "train[3:16]"])
def test_the_same_records_as_in_array_record(pets, data_dir, split):
    ours, theirs = open_source(data_dir, "pets", split), open_source(pets[0], "pets", split)
    assert contents(ours) == contents(theirs)
    assert (ours.dataset, ours.version, ours.split, ours.classes) == (theirs.dataset, theirs.version, theirs.split, theirs.classes)
    assert contents(open_source(data_dir, "pets", split, check_crc=True)) == contents(theirs)
    assert ours.nbytes == pytest.approx(sum(len(r.image) for r in contents(ours)), rel=0.1)


def test_a_template_with_a_folder_a_split(pets, data_dir, directory):
    info = json.loads((directory / "dataset_info.json").read_text())
    (directory / "train").mkdir()
    for split in info["splits"]:
        split["filepathTemplate"] = "{SPLIT}/data.{FILEFORMAT}-{SHARD_INDEX}"
    for i in range(3):
        shard(directory, i).rename(directory / "train" / f"data.tfrecord-{i:05d}")
    (directory / "dataset_info.json").write_text(json.dumps(info))
    assert contents(open_source(data_dir, "pets", "train")) == contents(open_source(pets[0], "pets", "train"))


def test_metadata_of_an_old_tfds_name_no_format(pets, data_dir, directory):
    info = json.loads((directory / "dataset_info.json").read_text())
    del info["fileFormat"]
    for split in info["splits"]:
        del split["filepathTemplate"]
    (directory / "dataset_info.json").write_text(json.dumps(info))
    assert contents(open_source(data_dir, "pets", "train")) == contents(open_source(pets[0], "pets", "train"))


def test_the_index_is_made_once_beside_the_data(data_dir, directory, capsys):
    first = open_source(data_dir, "pets", "train[:5]")
    assert "Indexing 3 TFRecord files" in capsys.readouterr().out
    again = open_source(data_dir, "pets", "train")
    assert capsys.readouterr().out == ""
    assert contents(again)[:5] == contents(first)
    assert sorted(p.name for p in directory.glob("*index*")) == [INDEX]
    assert not (data_dir.parent / "cache").exists()
    index = np.load(directory / INDEX, allow_pickle=False)
    assert index.shape == (tfrecord.KEY_WORDS + 20 + 3,)


def test_where_the_data_cannot_be_written_the_index_lies_in_the_users_cache(data_dir, directory, tmp_path, monkeypatch, capsys):
    make = tfrecord.tempfile.mkstemp

    def read_only(prefix, dir):
        if dir == directory:
            raise PermissionError(13, "Permission denied")
        return make(prefix=prefix, dir=dir)

    monkeypatch.setattr(tfrecord.tempfile, "mkstemp", read_only)
    open_source(data_dir, "pets", "train")
    assert not (directory / INDEX).exists()
    (made,) = (tmp_path / "cache" / "imagenet_jax" / "index").iterdir()
    assert made.parent.stat().st_mode & 0o777 == 0o700
    capsys.readouterr()
    open_source(data_dir, "pets", "train")
    assert capsys.readouterr().out == ""


def test_an_index_that_fits_nowhere_is_an_error(data_dir, monkeypatch):
    monkeypatch.setattr(tfrecord.tempfile, "mkstemp", lambda **kwargs: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UserError, match=r"fits nowhere: .* Set XDG_CACHE_HOME"):
        open_source(data_dir, "pets", "train")


def test_changed_data_are_indexed_again(data_dir, directory, capsys):
    before = contents(open_source(data_dir, "pets", "train"))
    first, third = shard(directory, 0).read_bytes(), shard(directory, 2).read_bytes()
    shard(directory, 0).write_bytes(third)
    shard(directory, 2).write_bytes(first)
    capsys.readouterr()
    after = contents(open_source(data_dir, "pets", "train"))
    assert "The data have changed" in capsys.readouterr().out
    assert [r.image for r in after] == [r.image for r in before[13:] + before[7:13] + before[:7]]


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "bit", "floats", "pickle"])
def test_a_damaged_index_is_made_again(data_dir, directory, damage, capsys):
    before = contents(open_source(data_dir, "pets", "train"))
    path = directory / INDEX
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[:-20])
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(bytes(b ^ 255 for b in data))
        case "bit":
            path.write_bytes(data[:-56] + bytes([data[-56] ^ 1]) + data[-55:])
        case "floats":
            np.save(path, np.load(path).astype(float))
        case "pickle":
            np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    capsys.readouterr()
    assert contents(open_source(data_dir, "pets", "train")) == before
    assert "is damaged" in capsys.readouterr().out
    assert contents(open_source(data_dir, "pets", "train")) == before
    assert capsys.readouterr().out == ""


def test_an_index_made_to_lead_astray_is_not_followed(data_dir, directory, capsys):
    """The right key and checksum, but places that no walk finds."""
    before = contents(open_source(data_dir, "pets", "train"))
    path = directory / INDEX
    table = np.load(path)
    table[tfrecord.KEY_WORDS + 3] = 2**60
    table[4] = tfrecord._checksum(table)
    np.save(path, table)
    capsys.readouterr()
    assert contents(open_source(data_dir, "pets", "train")) == before
    assert "is damaged" in capsys.readouterr().out


def cut(data):
    return data[:-3]


def length_garbage(data):
    return data[:7] + b"\x7f" + data[8:]


def length_wrong(data):
    """The second record is taken into the first: a place that the size of the file allows."""
    first = int.from_bytes(data[:8], "little") + 16
    second = int.from_bytes(data[first : first + 8], "little") + 16
    return (first + second - 16).to_bytes(8, "little") + data[8:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut, "cut off or damaged: record 5"),
        (lambda data: data[: int.from_bytes(data[:8], "little") + 16], "ends after 1 of its 6 records"),
        (lambda data: b"", "ends after 0 of its 6 records"),
        (length_garbage, "cut off or damaged: record 0, at byte 0, claims"),
        (length_wrong, "ends after 5 of its 6 records"),
        (lambda data: data + data[: int.from_bytes(data[:8], "little") + 16], "bytes behind the 6 records"),
        (lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:], "the length of record 0 fails its CRC32C"),
    ],
    ids=["cut", "one record", "empty", "garbage", "wrong length", "too many", "crc of the length"],
)
def test_a_damaged_shard_is_named(data_dir, directory, change, words):
    path = shard(directory)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=words) as error:
        open_source(data_dir, "pets", "train")
    assert str(path) in str(error.value)
    assert not (directory / INDEX).exists()


def test_a_missing_shard_is_named(data_dir, directory):
    shard(directory).unlink()
    with pytest.raises(UserError, match=f"is damaged: .*{shard(directory).name}"):
        open_source(data_dir, "pets", "train")


def test_a_claim_of_more_records_than_fit_allocates_nothing(data_dir, directory):
    info = json.loads((directory / "dataset_info.json").read_text())
    next(s for s in info["splits"] if s["name"] == "train")["shardLengths"] = ["7", str(10**15), "7"]
    (directory / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="ends after 6 of its 1,000,000,000,000,000 records"):
        open_source(data_dir, "pets", "train[:5]")


def test_small_and_large_records_are_indexed_alike(data_dir, directory, monkeypatch):
    """Files of small records are read through in blocks, of large ones only the headers."""
    tables = []
    for small, through in ((0, 0), (1 << 20, 50), (1 << 20, 1 << 20)):
        monkeypatch.setattr(tfrecord, "SMALL", small)
        monkeypatch.setattr(tfrecord, "THROUGH", through)
        open_source(data_dir, "pets", "train")
        tables.append(np.load(directory / INDEX))
        (directory / INDEX).unlink()
    assert np.array_equal(tables[0], tables[1])
    assert np.array_equal(tables[0], tables[2])


def test_a_flipped_bit_is_found_where_the_check_is_asked_for(data_dir, directory):
    open_source(data_dir, "pets", "train")
    times = shard(directory).stat()
    data = bytearray(shard(directory).read_bytes())
    data[200] ^= 1  # in the image of record 7
    shard(directory).write_bytes(data)
    os.utime(shard(directory), ns=(times.st_atime_ns, times.st_mtime_ns))
    open_source(data_dir, "pets", "train[:7]+train[8:]", check_crc=True)
    with pytest.raises(UserError, match="is damaged at byte 0: its CRC32C does not fit"):
        open_source(data_dir, "pets", "train[7:9]", check_crc=True)
    source = open_source(data_dir, "pets", "train[7:9]")
    records = source.records.stored
    records._check_crc = True
    with pytest.raises(RunError, match=r"Example 0 of pets, .*pets-train.tfrecord-00001-of-00003 is damaged at byte 0"):
        source.read(0)
    source.read(1)


def test_a_shard_that_changes_under_a_running_program_is_named(data_dir, directory):
    source = open_source(data_dir, "pets", "train")
    data = shard(directory).read_bytes()
    with shard(directory).open("r+b") as file:
        file.write(bytes(8))
    with pytest.raises(RunError, match="has changed since it was indexed"):
        source.read(7)
    with shard(directory).open("r+b") as file:
        file.write(data[:100])
        file.truncate(100)
    with pytest.raises(RunError, match="ends before byte"):
        source.read(8)


def test_a_source_goes_to_a_spawned_process(data_dir):
    source = open_source(data_dir, "pets", "train[3:]")
    source.read(0)  # files are open
    assert "_tables" not in source.records.stored.__getstate__()  # the index would travel as a whole
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(source.read, range(len(source))) == contents(source)
