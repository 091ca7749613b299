"""A consumer at a rate: what it waits for, on a clock of ours, and once for real."""

import itertools
import re

import numpy as np
import pytest

from imagenet_jax.bench import __main__ as command
from imagenet_jax.bench import feed as feeding


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(("makes", "waited", "reached"), [(0.3, 0.6, 20.0), (0.0, 0.0, 50.0)])
def test_waiting_is_the_share_of_time_without_a_batch(monkeypatch, makes, waited, reached):
    """Batches of 10 that take `makes` seconds each for a consumer that computes for 0.2 seconds on one: 50 images/s at most."""
    clock = Clock()
    monkeypatch.setattr(feeding, "time", clock)

    def batches(*args, **settings):
        while True:
            clock.now += makes
            yield {"image": np.zeros((10, 1, 1, 3), np.uint8)}

    monkeypatch.setattr(feeding.loader, "train_batches", batches)
    shown = []
    found = feeding.feed(
        None, None, rate=50.0, seconds=100.0, batch_size=10, threads=1, processes=0, show=lambda *two: shown.append(two)
    )
    assert shown == list(itertools.pairwise(found))
    assert len(found) == 11
    assert found[0].images == 0
    last = found[-1]
    assert last.seconds >= 100
    assert last.waited / last.seconds == pytest.approx(waited)
    assert last.images / last.seconds == pytest.approx(reached)


def test_memory_that_is_taken_is_seen():
    before = feeding.resident_bytes()
    block = np.ones(64 << 20, np.uint8)
    assert feeding.resident_bytes() - before > 48 << 20
    assert block[0] == 1


def test_feed_from_the_command_line(jpegs, capsys):
    flags = ["--rate=100", "--seconds=0.3", "--size=16", "--batch_size=4", "--threads=1", "--engine=opencv"]
    assert command.main(["feed", f"--data_dir={jpegs}", "--dataset=jpegs", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "100 images/s wanted in batches of 4, 16 px, from jpegs (24 images), threads: 1, processes: none of their own, opencv"
        in lines[0]
    )
    rows = [re.fullmatch(r" +\d+- +\d+ +(\d+) +([\d.]+) % +([\d,]+) MiB", line) for line in lines[2:-1]]
    assert len(rows) == 10
    assert all(rows)
    assert re.fullmatch(
        r"all: \d+ images/s, waited [\d.]+ % of the time, resident memory [\d,]+ MiB at .*, [\d,]+ MiB at the end", lines[-1]
    )
