import os
import tracemalloc

import numpy as np
import pytest
from tensorflow_datasets.core import hashing

from imagenet_jax.data.storage.entries import Entries, Entry
from imagenet_jax.errors import UserError


def made(rows):
    entries = Entries()
    for row in rows:
        entries.add(*row)
    return entries


ROWS = [
    Entry("cat/ü.jpg", "cat", "a.tar", 512, 10),
    Entry("cat/2.jpg", "cat", "a.tar", 2**40, 2**33),
    Entry("dog/1.jpg", "dog", "a.tar", 0, 0),
    Entry("cat/3.jpg", "cat", "b.tar", 7, 1),
]


def test_what_goes_in_comes_out():
    entries = made(ROWS)
    assert list(entries) == ROWS
    assert list(entries[1:3]) == ROWS[1:3]
    assert (len(entries), entries.size, entries.labels()) == (4, 2**33 + 11, {"cat", "dog"})
    assert list(entries.names()) == [row.name for row in ROWS]
    with pytest.raises(IndexError):
        entries[4]


def test_a_selection_has_its_own_order_and_shares_the_names():
    entries = made(ROWS)
    assert list(entries.select(np.array([3, 0]))) == [ROWS[3], ROWS[0]]
    assert list(entries.select(np.array([False, True, True, False]))) == ROWS[1:3]
    assert not entries.select(np.zeros(4, bool))


def test_the_shuffled_order_is_by_tfds_hash_of_split_and_name():
    entries = made([(f"cat\\{i}.jpg", "cat", "", 0, 0) for i in range(500)])
    hasher = hashing.Hasher("train")
    expected = sorted(range(500), key=lambda i: hasher.hash_key(f"cat\\{i}.jpg"))
    assert entries.tfds_order("train").tolist() == expected
    assert entries.tfds_order("validation").tolist() != expected


def test_a_name_that_occurs_twice_is_an_error_wherever_it_stands():
    rows = [(f"{i}.jpg", "cat", "x.tar", 0, 0) for i in (*range(50), 3)]
    with pytest.raises(UserError, match=r"x\.tar holds 3\.jpg twice"):
        made(rows).tfds_order("train")


def test_the_digest_changes_with_anything_but_the_place(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b"12345")
        os.utime(tmp_path / name, ns=(0, 0))
    row = ("1.jpg", "cat", str(tmp_path / "a"), 1, 2)
    digest = made([row]).digest()
    assert made([("1.jpg", "cat", str(tmp_path / "b"), 1, 2)]).digest() == digest
    others = [("2.jpg", *row[1:]), ("1.jpg", "dog", *row[2:]), (*row[:3], 0, 2), (*row[:4], 3)]
    assert digest not in {made([other]).digest() for other in others}
    assert made([row, row]).digest() != digest
    os.utime(tmp_path / "a", ns=(0, 1))
    assert made([row]).digest() != digest


def test_a_row_takes_32_bytes_and_its_name():
    count = 100_000
    tracemalloc.start()
    entries = Entries()
    for i in range(count):
        entries.add(f"n00004475_{i:08d}.JPEG", "n00004475", "x.tar", i * 512, 100)
    held, peak = tracemalloc.get_traced_memory()
    entries.tfds_order("train")
    _, sorting = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / count < 70  # 32 for the row, 23 for the name, and what a growing bytearray has in reserve
    assert peak / count < 100  # while it grows
    assert sorting / count < 160
