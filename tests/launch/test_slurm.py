"""launch/slurm.sbatch between a fake srun, squeue and scontrol: what each exit code of the trainer leads to."""

import os
import pathlib
import subprocess

import pytest

from imagenet_jax import cli

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "slurm.sbatch"


@pytest.fixture
def cluster(tmp_path):
    """Runs the script as job 7; returns its exit code and the calls. The trainer ends with `code` and leaves the job in `state`."""

    def run(*flags, code=0, state="RUNNING"):
        ends = {"srun": f"exit {code}", "squeue": f"echo {state}", "scontrol": ""}
        for name, end in ends.items():
            (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n{end}\n')
            (tmp_path / name).chmod(0o755)
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        done = subprocess.run(["bash", SCRIPT, *flags], env=env, text=True, capture_output=True, timeout=20)
        calls = tmp_path / "calls"
        return done.returncode, calls.read_text().splitlines() if calls.exists() else [], done.stdout

    return run


@pytest.mark.parametrize("code", [cli.TERMINATED, cli.REQUEUED])
def test_after_saving_the_job_queues_again(cluster, code):
    ended, calls, _ = cluster("--config=resnet50", code=code)
    assert (ended, calls[0]) == (code, "srun --kill-on-bad-exit=0 .venv/bin/python -m imagenet_jax.main --config=resnet50")
    assert calls[-1] == "scontrol requeue 7"


@pytest.mark.parametrize("code", [cli.FINISHED, cli.FAILED, cli.USER_MISTAKE, cli.INTERRUPTED])
def test_any_other_end_is_the_end(cluster, code):
    ended, calls, _ = cluster(code=code)
    assert (ended, [c for c in calls if "scontrol" in c]) == (code, [])


def test_a_cancelled_job_stays_cancelled(cluster):
    ended, calls, _ = cluster(code=cli.TERMINATED, state="COMPLETING")
    assert (ended, [c for c in calls if "scontrol" in c]) == (cli.TERMINATED, [])


def test_dry_run_prints_the_command(cluster):
    said = "srun --kill-on-bad-exit=0 .venv/bin/python -m imagenet_jax.main a\\ b \n"
    assert cluster("--dry_run", "a b") == (0, [], said)


def test_slurm_reads_all_directives():
    """It stops reading at the first line that is neither a comment nor empty."""
    lines = SCRIPT.read_text().splitlines()
    head = lines[: next(i for i, line in enumerate(lines) if line and not line.startswith("#"))]
    assert len([line for line in head if line.startswith("#SBATCH --")]) == SCRIPT.read_text().count("#SBATCH") >= 10
