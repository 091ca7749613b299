"""Remote places against a stand-in: an fsspec file system over a local folder, which can be told to fail."""

import collections
import json
import os
import pathlib
import shutil
import types
from typing import ClassVar

import fsspec
import pytest

from imagenet_jax.data.reading.sources import find, open_source
from imagenet_jax.data.storage import locate, remote
from imagenet_jax.data.storage.remote import Stat, Url
from imagenet_jax.errors import RunError, UserError


class Bucket(fsspec.AbstractFileSystem):
    """bucket://NAME/PATH is ROOT/NAME/PATH. Each call is counted, and first raises what `failures` has left for it."""

    protocol = "bucket"
    cachable = False
    root = pathlib.Path("/nonexistent")
    failures: ClassVar[dict] = {}
    calls: ClassVar[collections.Counter] = collections.Counter()

    def _called(self, kind, path):
        Bucket.calls[kind] += 1
        for name, errors in Bucket.failures.items():
            if path.endswith(name) and errors:
                raise errors.pop()
        return Bucket.root / path

    def info(self, path, **kwargs):
        path = self._strip_protocol(path)
        local = Bucket.root / path
        stat = local.stat()
        kind = "directory" if local.is_dir() else "file"
        return {"name": path, "size": stat.st_size, "type": kind, "ETag": f"{stat.st_mtime_ns:x}"}

    def ls(self, path, detail=True, **kwargs):
        path = self._strip_protocol(path)
        local = self._called("ls", path)
        if not local.exists():
            raise FileNotFoundError(path)
        names = [f"{path}/{p.name}" for p in sorted(local.iterdir())] if local.is_dir() else [path]
        return [self.info(name) for name in names] if detail else names

    def cat_file(self, path, start=None, end=None, **kwargs):
        local = self._called("range" if end is not None else "whole", self._strip_protocol(path))
        return local.read_bytes()[start:end]


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder behind bucket://b, an empty user's cache, no waiting between tries."""
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Bucket, "root", tmp_path / "buckets")
    monkeypatch.setattr(Bucket, "failures", {})
    monkeypatch.setattr(Bucket, "calls", collections.Counter())
    waits = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    folder = tmp_path / "buckets" / "b"
    folder.mkdir(parents=True)
    return types.SimpleNamespace(folder=folder, url=Url("bucket://b"), waits=waits, cache=tmp_path / "cache" / "imagenet_jax")


def contents(source):
    return [source.read(i) for i in range(len(source))]


# ---- requests


def test_a_lost_connection_is_tried_again_with_growing_waits(bucket):
    (bucket.folder / "x").write_bytes(b"0123456789")
    Bucket.failures = {"x": [ConnectionError("reset"), TimeoutError("slow"), Exception("429: too many requests"), OSError(5, "io")]}
    assert remote.read("bucket://b/x", 2, 3) == b"234"
    assert bucket.waits == [0.5, 1, 2, 4]
    assert remote.read("bucket://b/x") == b"0123456789"


def test_what_fails_five_times_names_the_url(bucket):
    (bucket.folder / "x").write_bytes(b"0123456789")
    Bucket.failures = {"x": [ConnectionError("reset by peer")] * 9}
    with pytest.raises(RunError, match=r"bucket://b/x cannot be read, 5 tries: .*reset by peer"):
        remote.read("bucket://b/x")
    assert Bucket.calls["whole"] == 5


def test_too_few_bytes_are_a_failure(bucket):
    (bucket.folder / "x").write_bytes(b"0123456789")
    with pytest.raises(RunError, match=r"bucket://b/x cannot be read, 5 tries: .*2 of 5 bytes came"):
        remote.read("bucket://b/x", 8, 5)


@pytest.mark.parametrize("error", [FileNotFoundError("x"), PermissionError("no credentials")])
def test_what_no_second_try_cures_is_the_users_mistake_at_once(bucket, error):
    Bucket.failures = {"x": [error]}
    with pytest.raises(UserError, match=r"bucket://b/x cannot be read: .*credentials"):
        remote.read("bucket://b/x")
    assert bucket.waits == []


def test_a_scheme_without_its_client_names_the_extra(bucket, monkeypatch):
    def absent(url, **options):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(UserError, match=r"gs://absent needs a client that is not installed: pip install 'imagenet_jax\[gcs\]'"):
        remote.read("gs://absent/x")


def test_a_scheme_that_nobody_knows(bucket):
    with pytest.raises(UserError, match="nonsense://b cannot be opened: Protocol not known"):
        remote.read("nonsense://b/x")


def test_places(bucket, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "bucket://b/data/")
    place = locate.data_dir(None)
    assert (str(place), place.name, str(place.parent), str(place / "x")) == (
        "bucket://b/data", "data", "bucket://b", "bucket://b/data/x"
    )  # fmt: skip
    assert place.absolute() == place == locate.place(str(place))
    assert not place.is_dir()
    with pytest.raises(UserError, match="bucket://b/data is remote: prepare into a local --data_dir"):
        locate.local_data_dir(None)


def test_a_folder_that_fails_to_be_listed_is_never_passed_over(bucket):
    for name in ("x/deep/1", "x/2", "y/3"):
        (bucket.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (bucket.folder / name).write_bytes(b"123")
    Bucket.failures = {"b/x/deep": [ConnectionError("reset")] * 4, "b/y": [OSError(5, "io")] * 4}
    assert {name: stat.size for name, stat in remote.files(bucket.url).items()} == {"x/2": 3, "x/deep/1": 3, "y/3": 3}
    assert bucket.url.glob("*/[0-9]") == [bucket.url / "x/2", bucket.url / "y/3"]
    Bucket.failures = {"b/y": [ConnectionError("reset")] * 10}
    with pytest.raises(RunError, match="bucket://b/y cannot be read, 5 tries"):
        remote.files(bucket.url)
    with pytest.raises(RunError, match="bucket://b/y cannot be read, 5 tries"):
        bucket.url.glob("*/[0-9]")


# ---- fetching


def test_files_are_fetched_once_and_again_when_they_change(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 4)
    target = tmp_path / "target"
    target.mkdir()
    (bucket.folder / "sub").mkdir()
    (bucket.folder / "a").write_bytes(b"0123456789")
    (bucket.folder / "sub" / "c").write_bytes(b"x" * 4)

    def fetch():
        remote.fetch(bucket.url, remote.files(bucket.url), target)
        return (target / "a").read_bytes(), (target / "sub" / "c").read_bytes()

    Bucket.failures = {"a": [ConnectionError("reset")] * 3}
    assert fetch() == (b"0123456789", b"xxxx")
    requests = Bucket.calls["range"]
    assert requests == 4 + 3  # 3 + 1 blocks, and three failures
    fetch()
    assert Bucket.calls["range"] == requests
    (bucket.folder / "a").write_bytes(b"9876543210")  # as long as before
    os.utime(bucket.folder / "a", ns=(1, 1))
    assert fetch() == (b"9876543210", b"xxxx")
    assert Bucket.calls["range"] == requests + 3
    (target / "sub" / "c").write_bytes(b"xx")
    assert fetch() == (b"9876543210", b"xxxx")
    (target / "fetched.journal").write_text("[]")
    assert fetch() == (b"9876543210", b"xxxx")


def test_a_fetch_that_fails_leaves_no_part_and_goes_on_from_there(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 4)
    monkeypatch.setattr(remote, "AT_A_TIME", 1)
    target = tmp_path / "target"
    target.mkdir()
    for name in "ab":
        (bucket.folder / name).write_bytes(b"0123456789")
    wanted = remote.files(bucket.url)
    Bucket.failures = {"b": [ConnectionError("reset")] * 5}
    with pytest.raises(RunError, match="bucket://b/b cannot be read"):
        remote.fetch(bucket.url, wanted, target)
    assert sorted(p.name for p in target.iterdir()) == ["a", "fetched.journal"]
    requests = Bucket.calls["range"]
    remote.fetch(bucket.url, wanted, target)
    assert (target / "b").read_bytes() == b"0123456789"
    assert Bucket.calls["range"] == requests + 3


def test_no_room_is_said_before_anything_is_fetched(bucket, tmp_path):
    with pytest.raises(UserError, match=r"GB free; 1 files of bucket://b need 1,000,000.00 GB"):
        remote.fetch(bucket.url, {"a": Stat(10**15, "")}, tmp_path)
    assert Bucket.calls["range"] == 0


# ---- data sets


@pytest.mark.parametrize("split", ["train", "train[5:9]+validation"])
def test_array_record_is_fetched_once(pets, bucket, split):
    shutil.copytree(pets[0], bucket.folder / "data")
    data_dir = bucket.url / "data"
    assert str(find(data_dir, "pets")) == "bucket://b/data/pets/1.0.0"
    source, local = open_source(data_dir, "pets", split), open_source(pets[0], "pets", split)
    assert contents(source) == contents(local)
    assert (source.fingerprint, source.classes, source.version) == (local.fingerprint, local.classes, local.version)
    requests = Bucket.calls["range"]
    open_source(data_dir, "pets:1.0.0", split)
    assert Bucket.calls["range"] == requests


def test_only_the_files_of_the_split_are_fetched(pets, bucket):
    shutil.copytree(pets[0], bucket.folder / "data")
    open_source(bucket.url / "data", "pets", "validation")
    (cache,) = (bucket.cache / "data").iterdir()
    assert [p.name for p in cache.glob("*array_record*")] == ["pets-validation.array_record-00000-of-00001"]
    assert cache.stat().st_mode & 0o777 == 0o700


def test_metadata_that_change_are_read_anew(pets, bucket):
    shutil.copytree(pets[0], bucket.folder / "data")
    assert open_source(bucket.url / "data", "pets", "train").encoding["quality"] is None
    path = bucket.folder / "data" / "pets" / "1.0.0" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "encoding": {"quality": 90}}))
    assert open_source(bucket.url / "data", "pets", "train").encoding["quality"] == 90
    path.unlink()
    assert open_source(bucket.url / "data", "pets", "train").encoding["quality"] is None


def test_tfrecords_are_read_in_place(pets, pets_tfrecord, bucket, capsys):
    shutil.copytree(pets_tfrecord, bucket.folder / "data")
    source = open_source(bucket.url / "data", "pets", "train", check_crc=True)
    assert contents(source) == contents(open_source(pets[0], "pets", "train"))
    (cache,) = (bucket.cache / "data").iterdir()
    assert sorted(p.name for p in cache.glob("*tfrecord*")) == ["train.tfrecord_index.npy"]
    capsys.readouterr()
    assert contents(open_source(bucket.url / "data", "pets", "train")) == contents(source)
    assert "Indexing" not in capsys.readouterr().out
    Bucket.failures = {"of-00003": [ConnectionError("reset")] * 4}
    source.read(12)
    Bucket.failures = {"of-00003": [ConnectionError("reset")] * 5}
    with pytest.raises(RunError, match=r"bucket://b/data/pets/1.0.0/pets-train.tfrecord-00001-of-00003 cannot be read, 5 tries"):
        source.read(12)


def test_a_missing_shard_is_named(pets_tfrecord, bucket):
    shutil.copytree(pets_tfrecord, bucket.folder / "data")
    (bucket.folder / "data" / "pets" / "1.0.0" / "pets-train.tfrecord-00001-of-00003").unlink()
    with pytest.raises(UserError, match=r"bucket://b/data/pets/1.0.0 is damaged: 'pets-train.tfrecord-00001-of-00003'"):
        open_source(bucket.url / "data", "pets", "train")


def test_a_data_set_that_is_not_there(pets, bucket):
    shutil.copytree(pets[0], bucket.folder / "data")
    with pytest.raises(UserError, match=r"birds is not in bucket://b/data\. .*Prepared there: pets"):
        open_source(bucket.url / "data", "birds", "train")
    with pytest.raises(UserError, match="Nothing is prepared there"):
        open_source(bucket.url / "nowhere", "birds", "train")


def test_a_plain_folder_is_the_same_as_a_local_one(pets, bucket):
    shutil.copytree(pets[1], bucket.folder / "photos")
    (bucket.folder / "photos" / "train" / "cat" / ".DS_Store").touch()
    for split in ("train", "validation"):
        source = open_source(pathlib.Path("/nonexistent"), "bucket://b/photos", split)
        local = open_source(pathlib.Path("/nonexistent"), str(pets[1]), split)
        assert contents(source) == contents(local)
        assert (source.classes, source.fingerprint, source.nbytes) == (local.classes, local.fingerprint, local.nbytes)
        assert source.dataset == "bucket://b/photos"
    with pytest.raises(UserError, match=r"bucket://b/photos has no split 'test'. Its folders: train, validation"):
        open_source(pathlib.Path("/nonexistent"), "bucket://b/photos", "test")
    with pytest.raises(UserError, match="bucket://b/none is no folder"):
        open_source(pathlib.Path("/nonexistent"), "bucket://b/none:folder", "test")
