import io
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from imagenet_jax.data.augmentation.augment import chain
from imagenet_jax.data.batches import workers
from imagenet_jax.data.batches.loader import eval_batches, train_batches
from imagenet_jax.data.batches.views import Pixels, Rows
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.reading.records import AS_THEY_CAME, Source
from imagenet_jax.data.reading.sources import ExampleRecords
from imagenet_jax.errors import RunError

AUGMENT = chain([("random_resized_crop", {"area": (0.3, 1.0)}), ("flip", {}), ("trivial_augment", {})])
PIXELS = Pixels(decode.engine("opencv"), 16, 0.875, True)
FIELDS = ("image", "label", "file_name")
BATCH = 7  # rows that neither 2 nor 3 workers can share evenly


def record(image, label):
    message = tf_example_pb2.Example()
    message.features.feature["image"].bytes_list.value.append(image)
    message.features.feature["label"].int64_list.value.append(label)
    message.features.feature["file_name"].bytes_list.value.append(b"some.jpg")
    return message.SerializeToString()


def source_of(records):
    return Source("toy", "1.0.0", "train", tuple("abcde"), "0" * 64, AS_THEY_CAME, 0, ExampleRecords(records, FIELDS, "train"))


@pytest.fixture(scope="module")
def images():
    encoded = []
    for i in range(23):
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (24 + i, 40 - i, 3), np.uint8)).save(buffer, "JPEG")
        encoded.append(buffer.getvalue())
    return encoded


@pytest.fixture(scope="module")
def source(images):
    return source_of([record(image, i % 5) for i, image in enumerate(images)])


def train(source, stop=6, prefetch=2, rows=None, **settings):
    rows = rows or Rows(0, BATCH)
    return train_batches(
        source, PIXELS, AUGMENT, seed=3, batch_size=BATCH, rows=rows, start=0, stop=stop, threads=2, prefetch=prefetch, **settings
    )


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in b:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.fixture
def started(monkeypatch):
    """The workers that the test starts."""
    found, start = [], workers._start

    def watched(*args):
        found.append(start(*args))
        return found[-1]

    monkeypatch.setattr(workers, "_start", watched)
    return found


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def shared_memory_is_gone(name):
    return not pathlib.Path("/dev/shm", name.lstrip("/")).exists()


def assert_nothing_is_left(started):
    for worker in started:
        assert not worker.process.is_alive()
        assert shared_memory_is_gone(worker.memory.name)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_batches_are_those_of_threads_to_the_bit(source, started, processes):
    assert_same(train(source, processes=processes), train(source))
    assert [w.rows.stop - w.rows.start for w in started] == {1: [7], 2: [3, 4], 3: [2, 2, 3]}[processes]
    assert_nothing_is_left(started)


def test_this_hosts_rows_of_a_global_batch_are_shared_out_too(source):
    assert_same(train(source, processes=2, rows=Rows(2, 3)), train(source, rows=Rows(2, 3)))


@pytest.mark.parametrize(("batch", "processes"), [(7, 3), (20, 2), (2, 5)])  # the last: more workers than rows
def test_evaluation_ends_in_the_same_padding(source, started, batch, processes):
    settings = {"batch_size": batch, "rows": Rows(0, batch), "prefetch": 1}
    assert_same(eval_batches(source, PIXELS, **settings, processes=processes), eval_batches(source, PIXELS, **settings))
    assert len(started) == min(batch, processes)


def test_a_batch_is_memory_of_its_own(source):
    batches = list(train(source, stop=8, prefetch=0, processes=1))
    assert_same(batches, train(source, stop=8))  # none was overwritten by a later one


def test_a_worker_that_is_killed_is_named_at_once(source, started):
    batches = train(source, stop=100_000, processes=2)
    next(batches)
    os.kill(started[1].process.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(RunError, match=rf"Data worker 1 \(process {started[1].process.pid}\) died, exit code -9: it was killed"):
        for _ in batches:
            pass
    assert time.monotonic() - began < 10
    assert_nothing_is_left(started)


def test_what_a_worker_cannot_do_is_said_as_a_thread_would(images, started):
    bad = source_of([record(image, 0) for image in images[:6]] + [record(b"no image", 0)])
    settings = {"batch_size": 7, "rows": Rows(0, 7)}
    with pytest.raises(RunError) as of_threads:
        list(eval_batches(bad, PIXELS, **settings))
    with pytest.raises(RunError) as of_processes:
        list(eval_batches(bad, PIXELS, **settings, processes=1))
    assert str(of_processes.value) == str(of_threads.value)
    assert "example 6 of toy" in str(of_processes.value)
    assert_nothing_is_left(started)


def test_a_bug_in_a_worker_comes_with_its_traceback(started):
    with pytest.raises(RuntimeError, match=r"(?s)in a data worker:\nTraceback .*in_threads.*TypeError"):
        next(train(source_of(None), processes=1))
    assert_nothing_is_left(started)


def test_a_worker_that_says_nothing_is_given_up(source, started, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.01)
    with pytest.raises(RunError, match=r"Data worker 0 .* has said nothing for 0.01 s"):
        next(train(source, processes=1))
    assert_nothing_is_left(started)


def test_broken_images_give_way_to_the_same_ones(images):
    broken = source_of([record(b"no image" if i % 5 < 2 else image, 0) for i, image in enumerate(images)])
    ours = list(train(broken, broken="substitute", processes=2))
    assert_same(ours, train(broken, broken="substitute"))
    assert (np.concatenate([b["instead_of"] for b in ours]) >= 0).any()


def test_closing_early_leaves_nothing_behind(source, started):
    batches = train(source, stop=100_000, processes=2)
    next(batches)
    assert all(is_alive(worker.process.pid) for worker in started)
    batches.close()
    assert_nothing_is_left(started)


SCRIPT = """
import pickle, signal, sys
from imagenet_jax.data.batches import workers
from imagenet_jax.data.pixels import decode
from imagenet_jax.data.augmentation.augment import chain
from imagenet_jax.data.batches.loader import train_batches
from imagenet_jax.data.batches.views import Pixels, Rows

if __name__ == "__main__":
    started, start = [], workers._start
    workers._start = lambda *args: started.append(start(*args)) or started[-1]
    source = pickle.loads(open(sys.argv[1], "rb").read())
    pixels = Pixels(decode.engine("opencv"), 16, 0.875, True)
    batches = train_batches(source, pixels, chain([]), seed=0, batch_size=4, rows=Rows(0, 4), start=0, stop=100_000, processes=2)
    next(batches)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    print(*(f"{w.process.pid} {w.memory.name}" for w in started), flush=True)
    sys.stdin.readline()
    for _ in range(50):
        next(batches)
    print("went on", flush=True)
"""


@pytest.fixture
def script(source, tmp_path):
    """A process with two workers that waits for a line, takes 50 batches and ends, closing nothing: (process, pids, names)."""
    (tmp_path / "source").write_bytes(pickle.dumps(source))
    command = [sys.executable, "-c", SCRIPT, tmp_path / "source"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, start_new_session=True) as process:
        words = process.stdout.readline().split()
        try:
            yield process, [*map(int, words[::2])], words[1::2]
        finally:
            process.kill()


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_signals_to_the_group_do_not_end_workers_and_the_end_of_the_program_does(script):
    process, pids, names = script
    assert len(pids) == 2
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGTERM)
    out, errors = process.communicate("\n", timeout=20)
    assert (process.returncode, out, errors) == (0, "went on\n", "")
    assert not any(map(is_alive, pids))
    assert all(map(shared_memory_is_gone, names))


def test_workers_follow_a_parent_that_is_killed(script):
    process, pids, names = script
    assert all(map(is_alive, pids))
    process.kill()
    assert wait_until(lambda: not any(map(is_alive, pids)))
    assert wait_until(lambda: all(map(shared_memory_is_gone, names)))


def test_workers_give_every_step_its_size(source):
    """More batches than slots, so that slots of the largest size are used again for smaller and larger ones."""
    sizes = ((0, 8), (5, 24), (8, 16))
    assert_same(train(source, stop=12, sizes=sizes, processes=2), list(train(source, stop=12, sizes=sizes)))
