"""The files of an index: what is written comes back, and what is missing, damaged or of another model is refused."""

import json
import shutil

import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.retrieval import store


@pytest.fixture
def vectors(random_unit):
    return random_unit(np.random.default_rng(0), 250, 6)


def test_rows_come_back_in_order_whatever_the_blocks(make_index, vectors, tmp_path):
    index = make_index(tmp_path / "i", vectors, labels=np.arange(250) % 1000)
    assert len(index) == 250
    assert index.counts == [100, 100, 50]
    for rows in (1 << 20, 33):
        blocks = list(index.blocks(rows))
        assert [first for first, _ in blocks] == np.cumsum([0, *(len(b) for _, b in blocks[:-1])]).tolist()
        assert np.array_equal(np.concatenate([b for _, b in blocks]), vectors)
    some = [249, 0, 100, 99, 0]
    assert np.array_equal(index.vectors(some), vectors[some])
    described = index.describe(some)
    assert [d["name"] for d in described] == [f"{i}.jpg" for i in some]
    assert [d["top"][0]["index"] for d in described] == some
    assert described[1]["label"] == "tench"
    assert index.labels().tolist() == list(range(250))
    with pytest.raises(IndexError):
        index.describe([250])


def test_a_shard_with_no_picture_that_decodes_is_a_shard(make_index, vectors, tmp_path):
    index = make_index(tmp_path / "i", vectors)
    empty = store.Predictions(np.zeros((0, 2), np.int32), np.zeros((0, 2), np.float32))
    nothing = store.Rows(np.zeros((0, 6), np.float32), np.zeros(0, np.int64), [], np.zeros(0, np.int32), empty)
    store.write_shard(tmp_path / "i", index.manifest, 1, nothing)
    index = store.Index(tmp_path / "i")
    assert len(index) == 150
    assert [d["name"] for d in index.describe([99, 100])] == ["99.jpg", "200.jpg"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "index.json").unlink(), "is no index"),
        (lambda f: (f / "index.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "index.json").write_text('{"format": 1}'), "not of format 1"),
        (lambda f: (f / "vectors-00001-of-00003.npy").unlink(), "1 of 3 shards are missing, the first is number 1"),
        (lambda f: (f / "vectors-00001-of-00003.npy").write_bytes(b"\x93NUMPY\x01\x00"), "is damaged"),
        (lambda f: np.save(f / "vectors-00001-of-00003.npy", np.zeros((100, 5), np.float32)), "is damaged"),
        (lambda f: np.save(f / "vectors-00001-of-00003.npy", np.zeros((99, 6), np.float32)), "does not belong to the vectors"),
        (lambda f: np.save(f / "vectors-00001-of-00003.npy", np.array([{}], object), allow_pickle=True), "is damaged"),
        (lambda f: (f / "images-00002-of-00003.parquet").write_bytes(b"PAR1"), "is damaged"),
    ],
)
def test_damage_is_named(make_index, vectors, tmp_path, break_it, message):
    make_index(tmp_path / "i", vectors)
    break_it(tmp_path / "i")
    with pytest.raises(UserError, match=message):
        store.Index(tmp_path / "i")


def test_a_header_that_promises_more_than_the_file_holds_allocates_nothing(make_index, vectors, tmp_path):
    make_index(tmp_path / "i", vectors)
    path = tmp_path / "i" / "vectors-00000-of-00003.npy"
    np.save(path, np.zeros((100, 6), np.float32))
    data = path.read_bytes().replace(b"(100, 6), }" + b" " * 8, b"(10000000000, 6), }")
    assert b"(10000000000, 6)" in data
    path.write_bytes(data)
    with pytest.raises(UserError, match="is damaged: mmap length"):
        store.Index(tmp_path / "i")


def test_predictions_of_classes_that_do_not_exist_are_refused(make_index, vectors, tmp_path):
    index = make_index(tmp_path / "i", vectors)
    content = json.loads((tmp_path / "i" / "index.json").read_text())
    content["classes"] = content["classes"][:200]
    (tmp_path / "i" / "index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="classes that it does not name"):
        list(store.Index(tmp_path / "i").predictions())
    assert len(list(index.predictions())) == 3


def test_other_weights_are_refused(make_index, vectors, tmp_path):
    one, other = make_index(tmp_path / "a", vectors), make_index(tmp_path / "b", vectors, weights="v")
    one.refuse_unlike(one.manifest, "itself")
    with pytest.raises(UserError, match="weights: w here, v there"):
        one.refuse_unlike(other.manifest, "b")
    another = other.manifest | {"model": {"name": "vit", "settings": {}}}
    with pytest.raises(UserError, match=r"they differ in model: name none here, vit there\. Embed"):  # and not in all that follows
        one.refuse_unlike(another, "b")


def test_a_killed_writer_leaves_no_shard(make_index, vectors, tmp_path, monkeypatch):
    index = make_index(tmp_path / "i", vectors)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "i" / "index.json", copy)
    rows = store.Rows(vectors[:100], np.arange(100), ["x"] * 100, np.zeros(100, np.int32), next(index.predictions())[1])

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(store.pq, "write_table", fail)
    with pytest.raises(OSError, match="no space"):
        store.write_shard(copy, index.manifest, 0, rows)
    assert not store.is_finished(copy, index.manifest, 0)
    assert [p.name for p in copy.iterdir() if p.name.startswith(".")] == []
