"""Two real processes on one machine, over gloo: they compute what one does, stop together, and neither outlives the other."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from imagenet_jax import checkpoint, logs

pytestmark = pytest.mark.slow

CONFIG = """
from imagenet_jax import config

def get_config():
    c = config.default()
    c.dataset, c.image_size, c.crop_ratio = "digits", 8, 1.0
    c.mean, c.std = (0.5,) * 3, (0.5,) * 3
    c.model.name = "resnet8"
    c.model.dtype = c.model.param_dtype = "float64"
    c.epochs, c.warmup_epochs, c.batch_size, c.bn_group = 1.0, 0.2, 64, 16
    c.learning_rate, c.lr_batch, c.ema_decay = 0.05, 64, 0.9
    c.log_interval, c.checkpoint_interval, c.eval_interval_epochs = 1, 5, 0.5
    c.data.threads = 1
    return c
"""


class Group:
    """`count` processes of one run, of 4 devices in all, and what they say.

    `own`: flags of one process alone; `faulty`: what happens in one alone, as Python that runs first, with `imagenet_jax` at hand.
    """

    def __init__(
        self, count: int, folder: pathlib.Path, *flags: str, command: str = "main",
        own: dict[int, list[str]] | None = None, faulty: dict[int, str] | None = None,
    ):  # fmt: skip
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
        file = folder / "digits8.py"
        file.write_text(CONFIG)
        place = ["--coordinator", f"localhost:{port}", f"--num_processes={count}"] if count > 1 else []
        env = {**os.environ, "JAX_ENABLE_X64": "1", "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // count}"}
        self.logs = [folder / f"{time.monotonic_ns()}.{i}.log" for i in range(count)]
        flags = (f"--data_dir={folder / 'data'}", *([f"--config={file}"] if command == "main" else []), *flags)
        self.processes = []
        for i, log in enumerate(self.logs):
            mine = [*place, f"--process_id={i}"] if count > 1 else []
            mine += (own or {}).get(i, [])
            program = f"{(faulty or {}).get(i, '')}\nfrom imagenet_jax import cli, {command}\ncli.run({command}.main)"
            with log.open("w") as out:
                started = subprocess.Popen(
                    [sys.executable, "-c", program, *flags, *mine], env=env, stdout=out, stderr=subprocess.STDOUT
                )
                self.processes.append(started)

    def said(self, index: int) -> str:
        return self.logs[index].read_text()

    def codes(self, timeout: float = 600) -> list[int]:
        """Their exit codes, when all have ended."""
        end = time.monotonic() + timeout
        try:
            return [p.wait(max(0.1, end - time.monotonic())) for p in self.processes]
        finally:
            for p in self.processes:
                p.kill()

    def wait_for(self, workdir: pathlib.Path, step: int) -> None:
        while not any(r["step"] >= step for r in logs.read(workdir / "metrics.jsonl")):
            assert all(p.poll() is None for p in self.processes), [self.said(i)[-2000:] for i in range(len(self.logs))]
            time.sleep(0.05)


def numbers(workdir):
    """What the journal says: (kind, step, weights, loss, top-1) a line."""
    return [(r["kind"], r["step"], r.get("weights"), r["loss"], r["top1"]) for r in logs.read(workdir / "metrics.jsonl")]


SLOW = """
import time
from imagenet_jax.data.batches import loader

def slow(batches):
    for batch in batches:
        time.sleep(0.5)
        yield batch

fast = loader.train_batches
loader.train_batches = lambda *a, **k: slow(fast(*a, **k))
"""


DAMAGED = """
import jax
import orbax.checkpoint as ocp

read = ocp.StandardCheckpointer.restore

def restore(self, folder, like):
    if folder.parent.name != "00000022":
        return read(self, folder, like)
    {fault}

ocp.StandardCheckpointer.restore = restore
"""
FAULTS = {
    "flipped": "return jax.tree.map(lambda x: x.at[(0,) * x.ndim].add(1), read(self, folder, like))",
    "cut short": "raise ValueError('NOT_FOUND: Error reading d/0123')",
}


def test_one_process_and_two_and_taking_turns_compute_the_same(tmp_path):
    """Training, evaluation with a remainder (381 images in batches of 64), checkpoints of one restored by two and back."""
    one, two, turns = tmp_path / "one", tmp_path / "two", tmp_path / "turns"
    runs = [(1, one, []), (2, two, []), (1, turns, ["--stop_after=7"]), (2, turns, ["--stop_after=14"]), (1, turns, [])]
    for count, workdir, flags in runs:
        group = Group(count, tmp_path, f"--workdir={workdir}", *flags)
        assert group.codes() == [0] * count, group.said(0)[-3000:] + group.said(-1)[-3000:]
        if count == 2:
            assert "loss" not in group.said(1)  # process 0 speaks for both
    want = numbers(one)
    assert [n[1] for n in want if n[0] == "train"] == list(range(1, 23))
    for workdir in (two, turns):
        got = numbers(workdir)
        assert [n[:3] for n in got] == [n[:3] for n in want]
        np.testing.assert_allclose([n[3] for n in got], [n[3] for n in want], rtol=0, atol=1e-9)
        assert [n[4] for n in got] == [n[4] for n in want]
        ours, theirs = (json.loads((w / "eval" / "digits-validation.json").read_text()) for w in (workdir, one))
        assert ours["images"] == theirs["images"] == 381
        assert ours["raw"]["top1"] == theirs["raw"]["top1"]
        assert [s["raw"][0]["index"] for s in ours["samples"]] == [s["raw"][0]["index"] for s in theirs["samples"]]
        assert (workdir / "report.html").exists()
        assert checkpoint.latest_step(workdir / "checkpoints") == 22


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_stops_both_at_the_same_step(tmp_path, asked):
    run = tmp_path / "run"
    group = Group(2, tmp_path, f"--workdir={run}", "--config.epochs=1000", "--config.eval_interval_epochs=0")
    group.wait_for(run, 5)
    group.processes[asked].send_signal(signal.SIGTERM)
    assert group.codes(60) == [143, 143], group.said(0)[-3000:] + group.said(1)[-3000:]
    step = checkpoint.latest_step(run / "checkpoints")
    assert f"Stopped by SIGTERM at step {step}, saved." in group.said(0)
    assert logs.read(run / "metrics.jsonl")[-1]["step"] == step


@pytest.mark.parametrize("killed", [0, 1])
def test_who_outlives_another_ends_and_names_it(tmp_path, killed):
    run = tmp_path / "run"
    group = Group(2, tmp_path, f"--workdir={run}", "--config.epochs=1000", "--config.eval_interval_epochs=0")
    group.wait_for(run, 12)
    group.processes[killed].kill()
    assert group.codes(120)[1 - killed] not in (0, -signal.SIGKILL)
    said = group.said(1 - killed)
    if killed == 1:  # gloo's connection broke off, or a heartbeat was missed
        assert re.search(r"(timed out task names|\(stopped sending heartbeats\)):\n1\n", said)
    else:
        assert "the leader (usually slice 0 task 0)" in said
    assert checkpoint.latest_step(run / "checkpoints") in (5, 10, 15, 20)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (["--config.learning_rate=0.2"], "config of process 1 differs from that of process 0"),
        (["--workdir={}/elsewhere"], "Process 1 does not see what process 0 writes"),
    ],
)
def test_processes_that_do_not_belong_together_are_refused(tmp_path, own, message):
    group = Group(2, tmp_path, f"--workdir={tmp_path / 'run'}", own={1: [flag.format(tmp_path) for flag in own]})
    assert group.codes() == [2, 2], group.said(0)[-2000:] + group.said(1)[-2000:]
    assert all(message in group.said(i) for i in (0, 1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of 22 steps, with checkpoints of 20, 21 and 22, by one process."""
    folder = tmp_path_factory.mktemp("finished")
    group = Group(1, folder, f"--workdir={folder / 'run'}", "--config.checkpoint_interval=1")
    assert group.codes() == [0], group.said(0)[-3000:]
    return folder


def test_a_slow_host_is_named_and_changes_no_number(finished, tmp_path):
    """0.5 s a batch in process 1, where a step takes less: process 0, which writes, waits for process 1 and not for data."""
    run = tmp_path / "run"
    group = Group(2, finished, f"--workdir={run}", "--stop_after=8", faulty={1: SLOW})
    assert group.codes() == [0, 0], group.said(0)[-3000:] + group.said(1)[-3000:]
    waits = [(r["data_wait"], r["data_wait_process"]) for r in logs.read(run / "metrics.jsonl") if r["kind"] == "train"]
    assert [process for _, process in waits].count(1) > 4, waits
    assert max(waits) > (0.5, 1)
    assert re.search(r"data wait +\d+% \(process 1\)", group.said(0))
    assert group.said(0).count("More than half of the time goes into waiting for data (process 1).") == 1
    np.testing.assert_allclose(
        [n[3] for n in numbers(run)], [n[3] for n in numbers(finished / "run")[: len(waits)]], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_that_one_process_alone_meets_takes_all_to_the_step_before(finished, tmp_path, fault):
    run = tmp_path / "run"
    shutil.copytree(finished / "run", run)
    (run / "report.html").unlink()  # so that it is not finished
    group = Group(
        2, finished, f"--workdir={run}", "--config.checkpoint_interval=1", faulty={1: DAMAGED.format(fault=FAULTS[fault])}
    )
    assert group.codes() == [0, 0], group.said(0)[-3000:] + group.said(1)[-3000:]
    said = group.said(0)
    assert said.count(" is damaged: ") == 1
    assert f"Process 1: {run / 'checkpoints' / '00000022'} is damaged: " in said
    assert f"Resuming {run} at step 21." in said
    assert len(list((run / "checkpoints").glob("00000022.damaged-*"))) == 1
    assert checkpoint.latest_step(run / "checkpoints") == 22
    np.testing.assert_allclose([n[3] for n in numbers(run)], [n[3] for n in numbers(finished / "run")], rtol=0, atol=1e-9)


def test_two_processes_evaluate_as_one(finished):
    """381 images, which no batch of 64 divides."""
    run = finished / "run"
    result = run / "eval" / "digits-validation.json"
    want, matrices = json.loads(result.read_text()), np.load(result.with_suffix(".npz"))
    shutil.rmtree(result.parent)
    group = Group(2, finished, f"--workdir={run}", command="evaluate")
    assert group.codes() == [0, 0], group.said(0)[-3000:] + group.said(1)[-3000:]
    assert "381 images, step 22" in group.said(0)
    got = json.loads(result.read_text())
    assert got["images"] == want["images"] == 381
    for weights in ("raw", "ema"):
        assert got[weights]["top1"] == want[weights]["top1"]
        assert got[weights]["loss"] == pytest.approx(want[weights]["loss"], abs=1e-9)
        np.testing.assert_array_equal(np.load(result.with_suffix(".npz"))[f"confusion_{weights}"], matrices[f"confusion_{weights}"])
