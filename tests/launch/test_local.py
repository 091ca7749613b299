"""launch/local.py with a program of three lines in the place of the trainer, and once with the trainer."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

LOCAL = pathlib.Path(__file__).parents[2] / "launch" / "local.py"


@pytest.fixture
def program(tmp_path):
    """Makes `python -m imagenet_jax.main` the given code, for what `launched` starts in tmp_path. It knows its number as `me`."""
    package = tmp_path / "imagenet_jax"
    package.mkdir()
    (package / "__init__.py").touch()

    def write(code: str):
        start = "import os, signal, sys, time\nme = sys.argv[-1].removeprefix('--process_id=')\n"
        (package / "main.py").write_text(start + code)

    return write


def launched(folder, *flags, **env):
    command = [sys.executable, LOCAL, *flags]
    kept = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    return subprocess.Popen(command, cwd=folder, env=kept | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def outcome(process, timeout=20):
    said, _ = process.communicate(timeout=timeout)
    return process.returncode, said


def test_dry_run_prints_the_commands(tmp_path):
    code, said = outcome(launched(tmp_path, "--processes=2", "--dry_run", "--config=a b.py", CUDA_VISIBLE_DEVICES="3,5,6,7"))
    first, second = said.splitlines()
    port = re.search(r"localhost:(\d+)", first)[1]
    rest = f"{sys.executable} -m imagenet_jax.main '--config=a b.py' --coordinator=localhost:{port} --num_processes=2 --process_id="
    assert (code, first, second) == (0, f"CUDA_VISIBLE_DEVICES=3,5 {rest}0", f"CUDA_VISIBLE_DEVICES=6,7 {rest}1")


def test_gpus_that_cannot_be_dealt_out_are_refused(tmp_path):
    code, said = outcome(launched(tmp_path, "--processes=2", CUDA_VISIBLE_DEVICES="0,1,2"))
    assert code == 2
    assert "does not divide the 3 GPUs of CUDA_VISIBLE_DEVICES=0,1,2" in said


def test_lines_carry_their_process_and_success_is_zero(tmp_path, program):
    program("print('hello from', me)\nprint('and stderr', file=sys.stderr)")
    code, said = outcome(launched(tmp_path, "--processes=3"))
    assert code == 0
    assert [f"[{i}] hello from {i}" in said and f"[{i}] and stderr" in said for i in range(3)] == [True] * 3


def test_when_one_dies_the_others_end_and_its_code_is_ours(tmp_path, program):
    program("if me == '1': sys.exit(7)\ntime.sleep(60)")
    start = time.monotonic()
    assert outcome(launched(tmp_path, "--processes=3"))[0] == 7
    assert time.monotonic() - start < 20


def test_one_that_does_not_listen_is_killed(tmp_path, program):
    """The other ignores SIGTERM; `supervise` is given a grace of one second."""
    program("signal.signal(15, signal.SIG_IGN)\nprint('deaf', os.getpid(), flush=True)\nif me == '1': sys.exit(3)\ntime.sleep(60)")
    code = (
        f"import sys; sys.path.insert(0, {str(LOCAL.parent)!r}); import local;"
        "sys.exit(local.supervise(local.plan(2, [], 1, {}), grace=1))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, stdout=subprocess.PIPE, timeout=20)
    assert done.returncode == 3
    for pid in re.findall(r"deaf (\d+)", done.stdout):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_dead_process_is_noticed_though_its_children_live(tmp_path, program):
    """They hold its output open, and end with the run."""
    program(
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "print('child', child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9) if me == '1' else time.sleep(60)"
    )
    code, said = outcome(launched(tmp_path, "--processes=2"))
    assert code == 128 + signal.SIGKILL
    children = [pathlib.Path(f"/proc/{pid}/cmdline") for pid in re.findall(r"child (\d+)", said)]
    assert children  # the dead one's; the other may be ended before it has one
    end = time.monotonic() + 10
    while time.monotonic() < end and any(file.exists() and b"sleep" in file.read_bytes() for file in children):
        time.sleep(0.02)
    assert time.monotonic() < end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_passed_on(tmp_path, program, number):
    program("signal.signal(int(sys.argv[1]), lambda n, f: sys.exit(128 + n))\nprint('ready', flush=True)\ntime.sleep(60)")
    process = launched(tmp_path, "--processes=2", str(int(number)))
    assert [process.stdout.readline()[4:] for _ in range(2)] == ["ready\n"] * 2
    process.send_signal(number)
    assert outcome(process)[0] == 128 + number


@pytest.mark.slow
def test_two_processes_train(tmp_path):
    flags = ["--config=quickstart", f"--workdir={tmp_path / 'run'}", f"--data_dir={tmp_path / 'data'}", "--stop_after=4"]
    process = launched(tmp_path, "--processes=2", *flags, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    code, said = outcome(process, timeout=300)
    assert code == 0, said
    assert "Stopped at step 4" in said
    assert (tmp_path / "run" / "checkpoints").is_dir()
