"""A contestant's process: pinned, stopped between its turns, drained before it is timed, and named when it breaks down."""

import dataclasses
import itertools
import os
import pathlib
import sys
import time

import numpy as np
import pytest

from imagenet_jax.bench import contestants, table
from imagenet_jax.bench import input as bench
from imagenet_jax.bench.contestants import Absent, Contestant, Failed
from imagenet_jax.bench.task import Task
from imagenet_jax.data.reading.records import Record
from imagenet_jax.data.reading.sources import open_source
from imagenet_jax.errors import UserError

linux = pytest.mark.skipif(sys.platform != "linux", reason="affinity and /proc are Linux's")


@pytest.fixture
def task(jpegs):
    data = bench.load(open_source(jpegs, "jpegs", "train"), 1000)
    return Task(data.memory, data.stored, 1, 16, 4, "opencv", True)


def becomes(pid, state):
    """Whether the process gets into that state of /proc, or away, within seconds: signals arrive in their own time."""
    for _ in range(500):
        try:
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == state:
                return True
        except (FileNotFoundError, ProcessLookupError):
            return state == "Z"
        time.sleep(0.01)
    return False


def in_group(process, group):
    try:
        return os.getpgid(int(process.name)) == group
    except ProcessLookupError:
        return False


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def test_a_turn_counts_only_what_comes_after_the_drain(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(contestants, "time", clock)

    def batches():
        for number in itertools.count():
            clock.now += 0.0 if number < contestants.DRAIN else 0.5  # prefetched batches come at once
            yield np.zeros((8, 2, 2, 3), np.uint8)

    assert contestants._turn(batches(), 1.9) == 16  # 4 batches of 8 in 2 seconds


@linux
def test_a_contestant_is_pinned_and_stopped_between_its_turns(task, tmp_path):
    visible = os.sched_getaffinity(0)
    contestant = Contestant("ours", task, tmp_path / "log")
    try:
        pid = contestant._process.pid
        assert os.sched_getaffinity(0) == visible
        assert os.sched_getaffinity(pid) == {min(visible)}
        for _ in range(2):
            assert becomes(pid, "T")
            assert contestant.ask("turn", seconds=0.05) > 0
    finally:
        contestant.close()
    assert not pathlib.Path(f"/proc/{pid}").exists()


def test_the_time_split_adds_up_and_reads_from_the_files(task, tmp_path):
    contestant = Contestant("ours", task, tmp_path / "log")
    try:
        spent = contestant.ask("split", seconds=0.2)
    finally:
        contestant.close()
    assert spent.pop("images") > 0
    assert set(spent) == set(table.STEPS)
    assert min(spent.values()) > 0


def test_what_cannot_be_imported_is_absent(task, tmp_path):
    with pytest.raises(Absent, match="no_such_peer"):
        Contestant("peers.no_such_peer", task, tmp_path / "log")


def test_what_breaks_down_is_named(task, tmp_path):
    broken = dataclasses.replace(task.memory, records=[Record(b"no image", 0, "x.jpg")])
    with pytest.raises(Failed, match=r"x\.jpg"):
        Contestant("ours", task._replace(memory=broken), tmp_path / "log")
    assert "Traceback" in (tmp_path / "log").read_text()


def test_more_cores_than_there_are(task, tmp_path):
    with pytest.raises(UserError, match="--cores asks for 100000"):
        Contestant("ours", task._replace(cores=100_000), tmp_path / "log")


@linux
def test_what_dies_is_named_and_leaves_nothing_running(task, tmp_path):
    contestant = Contestant("peers.pillow_processes", task, tmp_path / "log")
    try:
        group = contestant._process.pid
        workers = [int(p.name) for p in pathlib.Path("/proc").iterdir() if p.name.isdigit() and in_group(p, group)]
        assert len(workers) >= 2
        os.kill(group, 9)
        with pytest.raises(Failed, match="-9"):
            contestant.ask("turn", seconds=0.05)
        assert contestant._pipe.closed
        assert all(becomes(pid, "Z") for pid in workers)
    finally:
        contestant.close()
