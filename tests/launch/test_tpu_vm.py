"""launch/tpu_vm.sh against a gcloud of ours that records calls and fails on demand, and what it sends to the workers, run here."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
FLAGS = ["r50", "--zone=us-west4-a", "--accelerator=v5litepod-16", "--bucket=photos", "--spot"]
TRAINER = ["--", "--config=configs/resnet50.py", "--data_dir=gs://photos/tfds", "--config.model.name=it's"]
START = (
    "bash tpu_worker.sh start bucket/runs/r50 --config=configs/resnet50.py --data_dir=gs://photos/tfds --config.model.name=it\\'s"
)
FRESH = ["create", "scp", "ssh setup", "ssh start"]


class Cloud:
    """A folder with a `gcloud` that comes first on PATH."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        (folder / "gcloud").write_text(f"#!{sys.executable} -SE\n" + pathlib.Path(__file__).with_name("gcloud.py").read_text())
        (folder / "gcloud").chmod(0o755)
        (folder / "plan").touch()

    def start(self, *words: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "TPU_POLL": "0.02"}
        command = [LAUNCH / "tpu_vm.sh", *words]
        return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *words: str, plan: str = "") -> tuple[int, str]:
        (self.folder / "plan").write_text(plan)
        process = self.start(*words)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def calls(self) -> list[list[str]]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def did(self) -> list[str]:
        """The verbs of what changes something."""
        verbs = [" ".join([c[3], c[-1].split()[2]]) if c[3] == "ssh" else c[3] for c in self.calls()]
        return [v for v in verbs if v not in ("describe", "ssh status")]

    @property
    def tpu(self) -> pathlib.Path:
        return self.folder / "tpu"


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


def test_dry_run_prints_every_command_and_calls_none(cloud):
    code, said = cloud.run("up", *FLAGS, "--dry_run", *TRAINER)
    lines = [line.strip() for line in said.splitlines() if line.startswith("gcloud")]
    where = "r50 --zone=us-west4-a"
    assert (code, cloud.calls()) == (0, [])
    assert lines[1] == (
        f"gcloud compute tpus queued-resources create {where} --node-id=r50 --accelerator-type=v5litepod-16 "
        "--runtime-version=v2-alpha-tpuv5-lite --spot"
    )
    assert lines[3].endswith("/code.bundle " + f"{LAUNCH}/tpu_worker.sh r50: --zone=us-west4-a --worker=all")
    ssh = f"gcloud compute tpus tpu-vm ssh {where} --worker=all --command=bash\\ tpu_worker.sh\\ "
    assert lines[4] == f"{ssh}setup\\ photos"
    assert lines[5].startswith(f"{ssh}start\\ bucket/runs/r50\\ --config=configs/resnet50.py")
    assert lines[-1] == f"gcloud compute tpus queued-resources delete {where} --force --quiet"


def test_a_run_from_nothing_to_the_end_leaves_nothing(cloud):
    code, said = cloud.run("up", *FLAGS, *TRAINER, plan="idle running+running running+0 0+0")
    assert (code, cloud.did()) == (0, [*FRESH, "delete"]), said
    assert not cloud.tpu.exists()
    assert [c[-1] for c in cloud.calls() if " start " in c[-1]] == [f"--command={START}"]


@pytest.mark.parametrize(
    "end", ["preempted", "unreachable preempted", "running+1 preempted", "143+running", "lost", "unreachable " * 10]
)
def test_a_preempted_tpu_is_replaced_and_the_run_goes_on(cloud, end):
    """Whatever the workers manage to say before their end."""
    code, said = cloud.run("up", *FLAGS, *TRAINER, plan=f"idle running {end} idle running 0")
    assert (code, cloud.did()) == (0, [*FRESH, "delete", *FRESH, "delete"]), said
    assert len({c[-1] for c in cloud.calls() if " start " in c[-1]}) == 1
    assert not cloud.tpu.exists()


@pytest.mark.parametrize("trainer_code", [1, 2, 130])
def test_a_run_that_fails_by_itself_is_not_repeated(cloud, trainer_code):
    code, said = cloud.run("up", *FLAGS, *TRAINER, plan=f"idle running running+{trainer_code} {trainer_code}+{trainer_code}")
    assert (code, cloud.did()) == (trainer_code, [*FRESH, "delete"]), said
    assert not cloud.tpu.exists()


def test_a_short_silence_does_no_harm(cloud):
    code, said = cloud.run("up", *FLAGS, *TRAINER, plan="idle running unreachable silent running 0")
    assert (code, cloud.did()) == (0, [*FRESH, "delete"]), said
    assert (cloud.folder / "plan").read_text() == ""  # it was watched to its end


def test_no_quota_is_said_and_leaves_nothing(cloud):
    (cloud.folder / "quota").touch()
    code, said = cloud.run("up", *FLAGS, *TRAINER)
    assert code == 1
    assert "Quota limit 'TPUV5sLitepodPerProjectPerZoneForTPUAPI' has been exceeded" in said
    assert "error: gcloud refused the request for v5litepod-16 in us-west4-a (above). For quota, ask for more" in said
    assert cloud.did() == ["create"]


def test_a_request_that_fails_later_is_said_and_deleted(cloud):
    (cloud.folder / "created").write_text("FAILED")
    code, said = cloud.run("up", *FLAGS, *TRAINER)
    assert (code, cloud.did()) == (1, ["create", "delete"])
    assert "error: The request r50 failed: no capacity left" in said


def test_endless_preemption_ends(cloud):
    (cloud.folder / "created").write_text("SUSPENDED")
    script = (LAUNCH / "tpu_vm.sh").read_text()
    assert "RESTARTS=100 " in script
    shutil.copytree(LAUNCH, cloud.folder / "launch")
    (cloud.folder / "launch" / "tpu_vm.sh").write_text(script.replace("RESTARTS=100 ", "RESTARTS=2 "))
    env = {**os.environ, "PATH": f"{cloud.folder}:{os.environ['PATH']}", "TPU_POLL": "0.02"}
    command = ["bash", cloud.folder / "launch" / "tpu_vm.sh", "up", *FLAGS, *TRAINER]
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert "error: r50 was taken away 3 times." in done.stderr
    assert (cloud.did(), cloud.tpu.exists()) == (["create", "delete"] * 3, False)


def test_a_run_that_goes_on_is_found_again(cloud):
    cloud.tpu.write_text("ACTIVE")
    code, said = cloud.run("up", *FLAGS, *TRAINER, plan="running running 0")
    assert (code, cloud.did()) == (0, ["delete"]), said


def test_a_signal_saves_then_deletes(cloud):
    (cloud.folder / "plan").write_text("idle " + "running " * 10_000)
    process = cloud.start("up", *FLAGS, *TRAINER)
    while "ssh start" not in cloud.did():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, cloud.did()) == (143, [*FRESH, "ssh stop", "delete"]), said
    assert not cloud.tpu.exists()


def test_a_tpu_that_cannot_be_deleted_is_named(cloud):
    (cloud.folder / "undeletable").touch()
    code, said = cloud.run("up", *FLAGS, *TRAINER, plan="idle running 0")
    assert code == 1
    assert f"error: r50 may still exist AND COST MONEY: {LAUNCH / 'tpu_vm.sh'} delete r50 --zone=us-west4-a" in said


def test_fetch_copies_from_the_bucket(cloud):
    assert cloud.run("fetch", "r50", "--bucket=photos")[0] == 0
    assert cloud.calls() == [["storage", "rsync", "--recursive", "gs://photos/runs/r50", "runs/r50"]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["upp"], "launch/tpu_vm.sh up NAME"),
        (["up"], "NAME '' must be"),
        (["up", "a;b", *FLAGS[1:]], "NAME 'a;b' must be"),
        (["up", "r50", "--accelerator=v5p-8", "--bucket=b", *TRAINER], "--zone=ZONE is needed"),
        (["create", "r50", "--zone=z"], "--accelerator=TYPE is needed"),
        (["setup", "r50", "--zone=z", "--bucket=gs://b"], "--bucket=BUCKET is needed, a name without gs://"),
        (["up", *FLAGS, "--sopt", *TRAINER], "unknown argument --sopt"),
        (["up", *FLAGS], "Give the trainer's flags after --"),
    ],
)
def test_mistakes_are_said_before_anything_is_asked_for(cloud, flags, message):
    code, said = cloud.run(*flags)
    assert (code, cloud.calls()) == (2, [])
    assert message in said


# ---- on the worker


@pytest.fixture
def worker(tmp_path):
    """Runs tpu_worker.sh in a home directory here, where the programs of a VM only say what they were asked."""
    home, programs = tmp_path / "home", tmp_path / "programs"
    (home / ".local" / "bin").mkdir(parents=True)
    programs.mkdir()
    for program in (programs / "gcsfuse", programs / "python3", home / ".local" / "bin" / "uv"):
        program.write_text(f'#!/bin/sh\necho {program.name} "$@"\n')
        program.chmod(0o755)
    env = {**os.environ, "HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}

    def run(*words: str) -> str:
        done = subprocess.run(["bash", LAUNCH / "tpu_worker.sh", *words], env=env, text=True, capture_output=True, timeout=20)
        return done.stdout + done.stderr

    run.home = home
    return run


def test_a_worker_is_set_up_twice_with_the_commit_that_was_sent(worker, tmp_path):
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y"]
    for command in (
        ["init", "-q"],
        ["commit", "-q", "--allow-empty", "-m", "one"],
        ["bundle", "create", "-q", worker.home / "code.bundle", "HEAD"],
    ):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    for _ in range(2):
        assert worker("setup", "photos").splitlines() == [
            "gcsfuse --implicit-dirs photos bucket",
            "python3 -m pip install --quiet --user uv",
            "uv venv --quiet --python=3.12 venv",
            "uv pip install --quiet --python=venv/bin/python --editable imagenet_jax[tpu,gcs]",
        ]
    commits = [subprocess.check_output([*git, "rev-parse", "HEAD"], cwd=d) for d in (tmp_path, worker.home / "imagenet_jax")]
    assert commits[0] == commits[1]


def test_a_worker_runs_the_trainer_and_knows_how_it_ended(worker):
    python = worker.home / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!{sys.executable} -SE\nimport signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n"
        "print(*sys.argv[1:], flush=True)\n"
        "sys.exit(7) if sys.argv[4] == 'fail' else time.sleep(15)\n"
    )
    python.chmod(0o755)

    def settled(not_yet: str) -> str:
        for _ in range(500):
            if (said := worker("status").strip()) != f"status: {not_yet}":
                break
            time.sleep(0.02)
        return said

    assert worker("status") == "status: idle\n"
    worker("start", "bucket/runs/r50", "a b")
    assert worker("status") == "status: running\n"
    assert "a run is going on here" in worker("start", "bucket/runs/r50")
    assert "a run is going on here" in worker("setup", "photos")
    while not (worker.home / "run.log").read_text():
        time.sleep(0.02)
    worker("stop")
    assert settled("running") == "status: 130"
    assert (worker.home / "run.log").read_text() == "-m imagenet_jax.main --workdir=bucket/runs/r50 a b\n"
    worker("start", "bucket/runs/r50", "fail")
    assert settled("running") == "status: 7"
    (worker.home / "run.exit").unlink()
    assert worker("status") == "status: lost\n"
