"""ImageNet-21K's size, simulated: 14,197,122 records in 2,048 sparse TFRecord shards, of which some hold bytes."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from imagenet_jax.data import order
from imagenet_jax.data.reading import tfrecord
from imagenet_jax.data.reading.crc32c import crc32c_of_words, masked
from imagenet_jax.data.storage.remote import Stat

RECORDS, SHARDS, CLASSES = 14_197_122, 2_048, 21_841
WRITTEN = 3_000  # records that really are there: those at the start of epoch 0, and those that the fingerprint reads

MEASURE = """
import re, sys, time, pathlib
from imagenet_jax.data import order
from imagenet_jax.data.reading.sources import open_source
import tensorflow_datasets, array_record.python.array_record_data_source

def resident():  # MB: of this process alone, and of mapped files, which all processes share
    text = pathlib.Path("/proc/self/status").read_text()
    return [int(re.search(kind + r":\\s+(\\d+)", text)[1]) / 1024 for kind in ("RssAnon", "RssFile")]

open_source(pathlib.Path(sys.argv[1]), "many", "validation")  # whatever tfds loads lazily is loaded
before, began = resident(), time.perf_counter()
source = open_source(pathlib.Path(sys.argv[1]), "many", "train")
opened, seconds = resident(), time.perf_counter() - began
_, ids, _ = order.examples(0, int(sys.argv[2]), len(source), 7)
began = time.perf_counter()
for i in ids.tolist():
    assert source.read(i).label == i % 21841
each, read = (time.perf_counter() - began) / len(ids), resident()
print(len(source), seconds, each * 1e6, *(b - a for a, b in zip(before, opened)), *(b - a for a, b in zip(opened, read)))
"""


def stored(index):
    """The TFRecord of an example of 1,100 bytes; the checksum of its data is left out."""
    message = tf_example_pb2.Example()
    message.features.feature["image"].bytes_list.value.append(index.to_bytes(8, "little") * 125)
    message.features.feature["label"].int64_list.value.append(index % CLASSES)
    message.features.feature["file_name"].bytes_list.value.append(b"")
    message.features.feature["file_name"].bytes_list.value[0] = b"x" * (1100 - message.ByteSize())
    data = message.SerializeToString()
    assert len(data) == 1100
    length = np.array([[len(data)], [0]], np.uint32)
    return length.tobytes() + masked(crc32c_of_words(length)).tobytes() + data + bytes(4)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    import tensorflow_datasets as tfds

    data_dir = tmp_path_factory.mktemp("many")
    directory = data_dir / "many" / "1.0.0"
    directory.mkdir(parents=True)
    names = [f"n{i:08d}" for i in range(CLASSES)]
    features = {
        "image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=names), "file_name": tfds.features.Text()
    }  # fmt: skip
    tfds.features.FeaturesDict(features).save_config(str(directory))
    ends = np.round(np.linspace(0, RECORDS, SHARDS + 1)).astype(np.int64)
    splits = {"train": np.diff(ends).tolist(), "validation": [2]}
    info = {
        "name": "many", "version": "1.0.0", "fileFormat": "tfrecord",
        "splits": [{"name": n, "shardLengths": list(map(str, c)), "numBytes": "1"} for n, c in splits.items()],
    }  # fmt: skip
    (directory / "dataset_info.json").write_text(json.dumps(info))
    size = len(stored(0))
    for split, counts in splits.items():
        paths = [directory / f"many-{split}.tfrecord-{i:05d}-of-{len(counts):05d}" for i in range(len(counts))]
        first = np.concatenate([[0], np.cumsum(counts)])
        wanted = {*order.examples(0, min(WRITTEN, sum(counts)), sum(counts), 7)[1].tolist()}
        wanted |= {*order.permute(np.arange(min(16, sum(counts))), sum(counts), 0).tolist()}
        for path, count in zip(paths, counts, strict=True):
            with path.open("wb") as file:
                file.truncate(count * size)
        for i in sorted(wanted):
            shard = int(np.searchsorted(first, i, "right")) - 1
            with paths[shard].open("r+b") as file:
                file.seek((i - first[shard]) * size)
                file.write(stored(i))
        stats = [Stat(s.st_size, str(s.st_mtime_ns)) for s in (path.stat() for path in paths)]
        starts = [np.arange(count + 1) * size for count in counts]
        tfrecord.write_index(
            tfrecord.Shards([str(p) for p in paths], stats, counts), starts, [directory / f"{split}.tfrecord_index.npy"]
        )
    return data_dir


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_fourteen_million_records_cost_the_start_and_the_process_little(many):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(many), str(WRITTEN)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    records, seconds, each, anon, mapped, anon_read, mapped_read = map(float, done.stdout.split())
    print(f"opened in {seconds:.2f} s, {each:.0f} us a read; MB of its own +{anon:.1f}, then +{anon_read:.1f}; "
          f"mapped +{mapped:.1f}, then +{mapped_read:.1f}")  # fmt: skip
    assert records == RECORDS
    assert anon < 60
    assert anon_read < 20
    assert mapped + mapped_read < 8 * RECORDS / 2**20 + 20  # never more than the index


def test_an_epoch_of_fourteen_million_needs_no_table():
    order.examples(0, 1024, RECORDS, 0)
    tracemalloc.start()
    for step in (0, 7_000, 13_864):
        epochs, ids, _ = order.examples(step * 1024, 1024, RECORDS, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(ids)) == 1024
    assert epochs[-1] == 1 > epochs[0]
    assert peak < 400_000  # bytes, for batches of 1,024: about 25 numbers of 8 bytes a row, whatever the size of the data
