"""Real faults at whole runs: signals in every phase, kills at random moments, a full disk, damage, two runs at once, a hang.

Runs are forked from a process that has imported everything, which saves them the seconds that imports take. docs/faults.md lists
all faults with their tests, here and elsewhere; `make faults` runs them.
"""

import errno
import gc
import io
import itertools
import json
import logging
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import fsspec
import jax
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from imagenet_jax import build, checkpoint, evaluate, logs, main, predict, record, sharding, train, tree
from imagenet_jax.data.storage import remote
from imagenet_jax.errors import RunError, UserError

# orbax leaves coroutines behind when it fails
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
KILLS = int(os.environ.get("IMAGENET_JAX_KILLS", "5"))  # `make faults` sets 50


@pytest.fixture(autouse=True)
def _collected():
    """They complain when they are collected: here, and not in another test."""
    yield
    gc.collect()


CONFIG = """
from imagenet_jax import config

def get_config():
    c = config.default()
    c.dataset, c.image_size, c.crop_ratio = "tiny", 16, 1.0
    c.augment = (("random_resized_crop", {"area": (0.5, 1.0)}), ("flip", {}))
    c.model.name = "resnet8"
    c.epochs, c.warmup_epochs, c.batch_size, c.mixup_alpha = 8.0, 1.0, 8, 0.2
    c.learning_rate, c.lr_batch, c.weight_decay, c.ema_decay = 0.05, 8, 1e-3, 0.9
    c.log_interval, c.checkpoint_interval, c.eval_interval_epochs = 13, 5, 2.0
    c.data.threads = 2
    return c
"""
TOTAL = 52  # 8 epochs x 52 images / 8

SERVER = """
import json, os, resource, signal, sys, time
from imagenet_jax import cli, evaluate, main, train

for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        end, done = time.monotonic() + job["timeout"], (0, 0)
        while done[0] == 0:
            done = os.waitpid(job["wait"], os.WNOHANG)
            time.sleep(0.01)
            if time.monotonic() > end:
                os.kill(job["wait"], signal.SIGKILL)
        print(os.waitstatus_to_exitcode(done[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        out = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(out, 1), os.dup2(out, 2)
        os.environ.update(job["env"])
        if job["largest"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest"], job["largest"]))
        sys.argv = ["main", *job["flags"]]
        cli.run(main.main)
    print(child, flush=True)
"""


class Run:
    """A run in a process of its own."""

    def __init__(self, server, pid: int, out: pathlib.Path, workdir: pathlib.Path):
        self._server, self.pid, self._out, self.workdir = server, pid, out, workdir

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def code(self, timeout: float = 600) -> int:
        return ask(self._server, {"wait": self.pid, "timeout": timeout})

    def said(self) -> str:
        return self._out.read_text()

    def ended(self) -> bool:
        """Whether it has, though nobody has asked for its exit code yet."""
        return "Z" in pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2]

    def wait_for(self, condition, timeout: float = 600) -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end
            assert not self.ended() or condition(), self.said()  # it may have come just before the end
            time.sleep(0.002)

    def records(self, kind: str) -> list[int]:
        return [r["step"] for r in logs.read(self.workdir / "metrics.jsonl") if r["kind"] == kind]


def ask(server, job: dict) -> int:
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


@pytest.fixture(scope="module")
def start(tiny_data, tmp_path_factory):
    """Start the train command on a workdir, with more flags; `largest`: bytes of a file that it may write."""
    folder = tmp_path_factory.mktemp("start")
    file = folder / "config.py"
    file.write_text(CONFIG)
    command = [sys.executable, "-W", "ignore", "-c", SERVER]

    def begin(workdir: pathlib.Path, *flags: str, largest: int = 0, cache: pathlib.Path | None = None) -> Run:
        out = folder / f"{time.monotonic_ns()}.out"
        env = {"XLA_FLAGS": "", **({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {})}
        flags = (f"--config={file}", f"--workdir={workdir}", f"--data_dir={tiny_data}", *flags)
        return Run(server, ask(server, {"flags": flags, "out": str(out), "env": env, "largest": largest}), out, workdir)

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        begin.config = file
        yield begin
        server.stdin.close()


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The uninterrupted run that the others are held against."""
    run = start(tmp_path_factory.mktemp("whole") / "run")
    assert run.code() == 0, run.said()
    return run.workdir


def assert_same_end(workdir: pathlib.Path, whole: pathlib.Path) -> None:
    """Every leaf of both final states has the same bits."""
    ours, theirs = final(workdir), final(whole)
    assert ours.keys() == theirs.keys()
    assert [k for k in ours if ours[k] != theirs[k]] == []


def final(workdir: pathlib.Path) -> dict[str, bytes]:
    run = record.read(workdir)
    mesh = sharding.make_mesh(jax.devices()[:1])
    like = build.abstract_state(build.model(run["config"], 4), run["config"], mesh)
    state = checkpoint.restore(workdir / "checkpoints", TOTAL, like)
    return {path: np.asarray(leaf).tobytes() for path, leaf in tree.paths(state)}


def in_compile(run: Run) -> None:
    run.wait_for((run.workdir / "metrics.jsonl").exists)  # made right before the first step
    time.sleep(0.2)


def in_step(run: Run) -> None:
    run.wait_for(lambda: run.records("train"))
    time.sleep(float(np.random.default_rng().uniform(0, 0.05)))


def in_evaluation(run: Run) -> None:
    run.wait_for(lambda: 13 in run.records("train"))  # logged right before the evaluation, which is compiled first


def in_save(run: Run) -> None:
    run.wait_for(lambda: list((run.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number", "steps"),
    [
        (in_compile, signal.SIGTERM, (0, 1)),
        (in_step, signal.SIGUSR1, (13, TOTAL)),
        (in_evaluation, signal.SIGTERM, (13, 13)),
        (in_save, signal.SIGTERM, (5, 12)),
        (in_save, signal.SIGUSR1, (5, 12)),
    ],
)
def test_a_signal_in_any_phase_saves_and_the_rerun_equals_uninterrupted(start, whole, tmp_path, moment, number, steps):
    """Sent twice: the second one does no harm."""
    fresh = tmp_path / "cache"
    run = start(tmp_path / "run", cache=fresh if moment in (in_compile, in_evaluation) else None)
    moment(run)
    run.send(number)
    run.send(number)
    began = time.monotonic()
    assert run.code() == 128 + number, run.said()
    assert time.monotonic() - began < 30
    step = checkpoint.latest_step(run.workdir / "checkpoints")
    assert steps[0] <= step <= steps[1]
    assert f"Stopped by {signal.Signals(number).name} at step {step}, saved." in run.said()
    if moment is in_evaluation:
        assert run.records("eval") == []
    again = start(run.workdir)
    assert again.code() == 0, again.said()
    assert step == 0 or f"at step {step}." in again.said()
    assert_same_end(run.workdir, whole)


@pytest.mark.slow
def test_killed_at_random_moments_a_run_goes_on_and_ends_as_uninterrupted(start, whole, tmp_path):
    """SIGKILL while it starts (one in five) and while it steps, evaluates, saves after every step and deletes what is old."""
    seed = np.random.SeedSequence().entropy
    rng, workdir, before, resumed, finished = np.random.default_rng(seed), tmp_path / "0", 0, 0, 0
    print(f"seed {seed}")
    flags = ("--config.checkpoint_interval=1", "--config.keep_checkpoints=2")
    for number in range(1, KILLS + 1):
        run = start(workdir, *flags)
        if number % 5:
            run.wait_for(lambda: run.ended() or (checkpoint.latest_step(workdir / "checkpoints") or 0) > before)  # noqa: B023
        time.sleep(rng.uniform(0, 1))
        run.send(signal.SIGKILL)
        code, said = run.code(), run.said()
        assert code in (0, -signal.SIGKILL), said
        step = checkpoint.latest_step(workdir / "checkpoints") or 0
        assert step >= before
        assert "damaged" not in said
        resumed += before > 0 and f"Resuming {workdir} at step {before:,}." in said
        before = step
        if code == 0:
            assert_same_end(workdir, whole)
            finished, before, workdir = finished + 1, 0, tmp_path / str(number)
    run = start(workdir, *flags)
    assert run.code() == 0, run.said()
    assert before == 0 or f"Resuming {workdir} at step {before:,}." in run.said() or "is finished" in run.said()
    assert_same_end(workdir, whole)
    assert all(d.name.isdigit() for d in (workdir / "checkpoints").iterdir())  # neither a draft nor the rest of a deletion
    print(f"{KILLS} kills, {resumed} of them in a run that had resumed, {finished} after its end")


@pytest.mark.slow
def test_a_full_disk_ends_the_run_within_a_save_interval_and_leaves_the_good_step(start, whole, tmp_path):
    """A file may not grow beyond 100 KB, where the state has 1.2 MB."""
    workdir = tmp_path / "run"
    assert start(workdir, "--stop_after=5").code() == 0
    for flags in ([], ["--stop_after=7"]):  # at the next save; at the end
        run = start(workdir, "--config.keep_checkpoints=1", *flags, largest=100_000)
        assert run.code() == 1, run.said()
        message = next(line for line in run.said().splitlines() if line.startswith("error: "))
        assert message == f"error: Saving a checkpoint to {workdir / 'checkpoints'} failed: {os.strerror(errno.EFBIG)}"
        assert checkpoint.steps(workdir / "checkpoints") == [5]
        assert max(run.records("train"), default=0) <= 15
    again = start(workdir)
    assert again.code() == 0, again.said()
    assert_same_end(workdir, whole)


@pytest.mark.slow
def test_a_workdir_that_vanishes_ends_the_run_at_the_next_save_and_goes_on_when_it_is_back(start, tmp_path):
    """Renamed, as a disk or a mount that goes away takes all with it. Nothing but drafts may lie in its place."""
    workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run = start(workdir, "--config.epochs=1000")
    run.wait_for(lambda: run.records("train"))
    workdir.rename(elsewhere)
    assert run.code() == 1, run.said()
    assert f"error: {workdir / 'checkpoints'} has vanished during the run" in run.said()
    assert [f for f in workdir.rglob("*") if f.is_file() and ".orbax-checkpoint-tmp" not in str(f)] == []
    shutil.rmtree(workdir, ignore_errors=True)
    elsewhere.rename(workdir)
    step = checkpoint.latest_step(workdir / "checkpoints")
    assert run.records("train")[-1] - step <= 13
    again = start(workdir, "--config.epochs=1000", f"--stop_after={step + 1}")
    assert again.code() == 0, again.said()
    assert f"Resuming {workdir} at step {step}." in again.said()


def flip(folder: pathlib.Path) -> None:
    """One bit in the middle of the largest file below."""
    file = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.slow
def test_a_flipped_bit_costs_one_step_and_all_flipped_end_the_run(start, whole, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert start(workdir, "--stop_after=15").code() == 0
    flip(workdir / "checkpoints" / "00000015")
    for command, flags in ((evaluate, [f"--workdir={workdir}"]), (predict, [f"--weights={workdir}", str(tmp_path / "a.jpg")])):
        (tmp_path / "a.jpg").touch()
        with pytest.raises(RunError, match="00000015 is damaged"):
            command.main(flags)
    listed = [sys.executable, "-m", "imagenet_jax.checkpoints", str(workdir)]
    done = subprocess.run([*listed, "--verify"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "damaged" in next(line for line in done.stdout.splitlines() if line.startswith("step        15"))
    assert "sound" in next(line for line in done.stdout.splitlines() if line.startswith("step        13"))
    assert "raw top-1" in done.stdout

    for name in ("00000010", "00000013"):
        shutil.copytree(workdir / "checkpoints" / name, tmp_path / name)
        flip(workdir / "checkpoints" / name)
    run = start(workdir)
    assert run.code() == 1, run.said()
    assert "holds no sound checkpoint" in run.said()
    for name in ("00000010", "00000013"):
        shutil.rmtree(workdir / "checkpoints" / name)
        shutil.copytree(tmp_path / name, workdir / "checkpoints" / name)
    run = start(workdir)
    assert run.code() == 0, run.said()
    assert run.said().count("is damaged") == 1
    assert f"Resuming {workdir} at step 13." in run.said()
    assert_same_end(workdir, whole)


@pytest.mark.slow
def test_a_second_run_in_the_same_workdir_refuses_and_a_dead_ones_lock_is_taken_over(start, tiny_data, tmp_path):
    workdir = tmp_path / "run"
    first = start(workdir, "--config.epochs=1000")
    first.wait_for(lambda: first.records("train"))
    command = [f"--config={start.config}", f"--workdir={workdir}", f"--data_dir={tiny_data}", "--config.epochs=1000"]
    with pytest.raises(UserError, match=f"is in use by process {first.pid} on "):
        main.main(command)
    seen = first.records("train")[-1]
    first.wait_for(lambda: first.records("train")[-1] > seen)
    first.send(signal.SIGKILL)
    assert first.code() == -signal.SIGKILL
    step = checkpoint.latest_step(workdir / "checkpoints")
    again = start(workdir, "--config.epochs=1000", f"--stop_after={step + 1}")
    assert again.code() == 0, again.said()
    assert f"was held by process {first.pid} on" in again.said()
    assert "which died. Its lock is taken over." in again.said()
    assert not (workdir / ".lock").exists()


@pytest.mark.slow
def test_a_worker_that_hangs_shows_all_stacks_and_is_named_within_a_minute(start, tmp_path):
    run = start(tmp_path / "run", "--config.epochs=1000", "--config.data.processes=1", "--config.stall_seconds=3")
    run.wait_for(lambda: run.records("train"))
    (worker,) = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[-1:]
    os.kill(int(worker), signal.SIGSTOP)
    assert run.code(100) == 1, run.said()
    assert "Nothing was finished for 3 s" in run.said()
    assert 'workers.py", line' in run.said()
    assert f"Data worker 0 (process {worker}) has said nothing for 60 s" in run.said()


HELD = """
import ctypes, gc, sys
from imagenet_jax import cli, main, train

names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = type("mallinfo2", (ctypes.Structure,), {"_fields_": [(n, ctypes.c_size_t) for n in names]})
log = train.log_window

def log_and_held(journal, console, plan, window):
    log(journal, console, plan, window)
    gc.collect()
    now = mallinfo()
    print("held", window.step, now.uordblks + now.hblkhd, file=sys.stderr)

train.log_window = log_and_held
cli.run(main.main)
"""


@pytest.mark.slow
def test_the_memory_that_a_run_holds_does_not_grow(start, tiny_data, tmp_path):
    """5,200 steps, 20 evaluations, 40 saves: from step 1,300 on less than 1 MB in 1,000 steps, at the median of the log intervals.

    What malloc has handed out, Python's objects included. The median, since some 3 MB come and go at once; not what the process
    occupies, which the free pieces between decide.
    """
    flags = ["--config.epochs=800", "--config.eval_interval_epochs=40", "--config.checkpoint_interval=260"]
    flags += [f"--config={start.config}", f"--workdir={tmp_path / 'run'}", f"--data_dir={tiny_data}", "--config.log_interval=260"]
    env = {**os.environ, "PYTHONMALLOC": "malloc", "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", HELD, *flags], env=env, text=True, capture_output=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    held = [int(line.split()[2]) / 1e6 for line in done.stderr.splitlines() if line.startswith("held ")]
    assert len(held) == 20
    growth = np.median(np.diff(held[4:])) * 1000 / 260
    print(f"{growth:.2f} MB in 1,000 steps; {held}")
    assert growth < 1


@pytest.mark.slow
def test_a_bucket_that_fails_three_times_costs_nothing_and_one_that_stays_away_ends_the_run(tiny_config, tmp_path, monkeypatch):
    """A stand-in in memory, whose reads fail on demand, in the middle of training; time-outs of a real store were not met."""
    store = fsspec.filesystem("memory")
    for i in range(30):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)).save(file, "png")
        store.pipe_file(f"/faults/{'train' if i < 24 else 'validation'}/{'ab'[i % 2]}/{i}.png", file.getvalue())
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    whole = MemoryFileSystem.cat_file
    tiny_config.dataset, tiny_config.log_interval = "memory://faults", 1

    def run(failures: int) -> list[float]:
        """The losses of 12 steps, of which some read is answered so often, then never again; the first 30 reads open the data."""
        calls = itertools.count()

        def cat_file(self, path, *args, **kwargs):
            if 30 < next(calls) <= 30 + failures:
                raise OSError(f"503 Service Unavailable: {path}")
            return whole(self, path, *args, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
        workdir = tmp_path / str(failures)
        assert train.train(tiny_config, workdir, data_dir=tmp_path, devices=jax.devices()[:1]) == 0
        assert next(calls) > 60
        return [r["loss"] for r in logs.read(workdir / "metrics.jsonl") if r["kind"] == "train"]

    try:
        undisturbed = run(0)
        assert len(undisturbed) == 12
        assert run(3) == undisturbed
        with pytest.raises(RunError, match=r"memory://faults/.*png cannot be read, 5 tries: .*503 Service.* Check the network"):
            run(10**6)
    finally:
        store.rm("/faults", recursive=True)


def test_the_training_step_is_compiled_once(tiny_config, tiny_data, tmp_path, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        train.train(tiny_config, tmp_path, data_dir=tiny_data, devices=jax.devices()[:1])
    compiled = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling jit(train_step)")]
    assert len(compiled) == 1, [r.getMessage()[:80] for r in caplog.records][:40]


@pytest.mark.slow
def test_a_second_start_takes_the_compiled_step_from_the_cache(tiny_data, tmp_path):
    """A run elsewhere and a resume: neither adds a program to what the first start compiled."""
    (tmp_path / "config.py").write_text(CONFIG)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)

    def programs(workdir: str, stop: int) -> set[str]:
        flags = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / workdir}", f"--data_dir={tiny_data}"]
        command = [sys.executable, "-m", "imagenet_jax.main", *flags, f"--stop_after={stop}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        return {file.name for file in (tmp_path / "cache").rglob("jit_train_step*-cache")}

    first = programs("a", 1)
    assert len(first) == 1
    assert programs("b", 1) == first
    assert programs("a", 2) == first


def test_the_table_of_faults_names_tests_that_exist():
    root = pathlib.Path(__file__).parents[1]
    names = set(re.findall(r"`(test_\w+)`", (root / "docs" / "faults.md").read_text()))
    defined = {w.split("(")[0] for f in (root / "tests").rglob("test_*.py") for w in f.read_text().split("def ")[1:]}
    assert names
    assert names <= defined, names - defined
