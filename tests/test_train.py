"""Whole runs: resume in every bit, refusals, exit codes."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from imagenet_jax import build, checkpoint, config, infer, logs, runtime, sharding, train, tree, validate
from imagenet_jax import main as entry
from imagenet_jax.errors import RunError, UserError

ONE = 1  # device


def run(c, workdir, data_dir, **kwargs):
    return train.train(c, workdir, data_dir=data_dir, devices=jax.devices()[:ONE], **kwargs)


def final_state(workdir: pathlib.Path):
    """(path, array) of every leaf of the newest checkpoint."""
    record = infer.record.read(workdir)
    mesh = sharding.make_mesh(jax.devices()[:ONE])
    model = build.model(record["config"], len(record["dataset"]["classes"]))
    step = checkpoint.latest_step(workdir / "checkpoints")
    like = build.abstract_state(model, record["config"], mesh)
    state = checkpoint.restore(workdir / "checkpoints", step, like)
    return [(path, np.asarray(leaf)) for path, leaf in tree.paths(state)]


def assert_same_bits(a, b):
    assert [p for p, _ in a] == [p for p, _ in b]
    for (path, x), (_, y) in zip(a, b, strict=True):
        assert x.dtype == y.dtype, path
        assert x.tobytes() == y.tobytes(), path


@pytest.fixture(scope="module")
def whole_run(tiny_data, tmp_path_factory):
    """The uninterrupted run that others are compared with. Its config file is what a user would write."""
    folder = tmp_path_factory.mktemp("whole")
    file = folder / "tiny.py"
    file.write_text(TINY)
    code = entry.main([f"--config={file}", f"--workdir={folder / 'run'}", f"--data_dir={tiny_data}"])
    assert code == 0
    return folder / "run", file


TINY = """
from imagenet_jax import config

def get_config():
    c = config.default()
    c.dataset, c.image_size, c.crop_ratio = "tiny", 16, 1.0
    c.augment = (("random_resized_crop", {"area": (0.5, 1.0)}), ("flip", {}), ("random_erasing", {"probability": 0.5}))
    c.repeats, c.mixup_alpha, c.cutmix_alpha, c.mix_probability = 2, 0.2, 1.0, 0.5
    c.model.name = "resnet8"
    c.epochs, c.warmup_epochs, c.batch_size = 6.0, 1.0, 8
    c.learning_rate, c.lr_batch, c.weight_decay, c.label_smoothing = 0.05, 8, 1e-3, 0.1
    c.ema_decay = 0.9
    c.log_interval, c.checkpoint_interval, c.eval_interval_epochs = 5, 10, 2.0
    c.train_sizes, c.ema_interval, c.eval_flip = ((0, 12), (1.5, 16)), 2, True
    return c
"""


def test_the_workdir_holds_what_a_reader_needs(whole_run):
    workdir, _ = whole_run
    record = json.loads((workdir / "config.json").read_text())
    assert record["steps"]["total"] == 39  # 6 epochs x 52 images / 8
    assert record["dataset"]["classes"] == ["blue", "green", "grey", "red"]
    assert record["preprocessing"]["decoder"]["name"] == "opencv"
    records = logs.read(workdir / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"] == [5, 10, 15, 20, 25, 30, 35, 39]
    assert {r["step"] for r in records if r["kind"] == "eval"} == {13, 26, 39}
    result = json.loads((workdir / "eval" / "tiny-validation.json").read_text())
    assert result["images"] == 21
    assert result["raw"]["top1"] > 0.9
    assert 0 <= result["ema"]["top1"] <= 1
    assert (workdir / "report.html").exists()
    assert list((workdir / "tensorboard").glob("events*"))


def test_a_finished_run_is_left_alone(whole_run, capsys):
    workdir, file = whole_run
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    assert entry.main([f"--config={file}", f"--workdir={workdir}", f"--data_dir={infer.record.read(workdir)['data_dir']}"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("stops", [(17,), (10, 11, 26)])
def test_stopped_and_resumed_equals_uninterrupted_in_every_bit(whole_run, tiny_data, tmp_path, stops):
    workdir, file = whole_run
    command = [f"--config={file}", f"--workdir={tmp_path}", f"--data_dir={tiny_data}"]
    for stop in stops:
        assert entry.main([*command, f"--stop_after={stop}"]) == 0
        assert checkpoint.latest_step(tmp_path / "checkpoints") == stop
        assert not (tmp_path / "report.html").exists()
    assert entry.main(command) == 0
    assert_same_bits(final_state(tmp_path), final_state(workdir))
    ours, theirs = (
        [(r["step"], r["weights"], r["loss"], r["top1"]) for r in logs.read(w / "metrics.jsonl") if r["kind"] == "eval"]
        for w in (tmp_path, workdir)
    )
    assert ours == theirs


TAUGHT = [
    "--config.sam_rho=0.05", "--config.schedule_free=0.9", "--config.schedule=constant", "--config.ema_decay=0.0",
    "--config.optimizer.momentum=0.0", "--config.distill.kind=hard", "--config.epochs=4.0",
]  # fmt: skip


@pytest.mark.slow
def test_a_taught_sharpness_aware_schedule_free_run_resumes_in_every_bit(whole_run, tiny_data, tmp_path):
    """The other run teaches; it is needed again, known by its content, and no checkpoint holds it."""
    teacher, file = whole_run
    moved = tmp_path / "moved"
    shutil.copytree(teacher, moved)

    def flags(teacher):
        return [*TAUGHT, f"--config.distill.weights={teacher}"]

    def go(folder, teacher, *more):
        return entry.main([f"--config={file}", f"--workdir={tmp_path / folder}", f"--data_dir={tiny_data}", *flags(teacher), *more])

    assert go("whole", teacher) == 0
    assert go("stopped", teacher, "--stop_after=17") == 0
    assert go("stopped", moved) == 0
    assert_same_bits(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole"))
    said = infer.record.read(tmp_path / "whole")["distill"]
    assert (said["model"], said["weights"], said["step"], len(said["sha256"])) == ("resnet8", "ema", 39, 64)
    for other in ("", tmp_path / "whole"):
        with pytest.raises(UserError, match=r"is taught by resnet8 \(sha256 .*, now by (nobody|resnet8)"):
            run(config.load(str(file), flags(other)), tmp_path / "stopped", tiny_data)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_at_a_random_moment_saves_and_the_rerun_equals_uninterrupted(whole_run, tiny_data, tmp_path, number, code):
    workdir, file = whole_run
    command = [f"--config={file}", f"--workdir={tmp_path}", f"--data_dir={tiny_data}"]

    def send_twice() -> None:  # in a step, an evaluation or a save; the second one does no harm
        while not logs.read(tmp_path / "metrics.jsonl"):
            time.sleep(0.01)
        time.sleep(np.random.default_rng().uniform(0, 0.2))
        for _ in range(2):
            os.kill(os.getpid(), number)

    sender = threading.Thread(target=send_twice)
    sender.start()
    assert entry.main(command) == code
    sender.join()
    stopped = checkpoint.latest_step(tmp_path / "checkpoints")
    assert stopped is not None
    assert 5 <= stopped <= 39
    assert entry.main(command) == 0
    assert_same_bits(final_state(tmp_path), final_state(workdir))


def test_an_interrupted_process_leaves_with_130_and_goes_on(whole_run, tiny_data, tmp_path):
    _, file = whole_run
    command = [sys.executable, "-m", "imagenet_jax.main", f"--config={file}", f"--workdir={tmp_path}", f"--data_dir={tiny_data}"]
    child = subprocess.Popen([*command, "--config.epochs=1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    while not child.stdout.readline().startswith("step "):
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    out, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    stopped = checkpoint.latest_step(tmp_path / "checkpoints")
    assert f"Stopped by SIGINT at step {stopped}, saved." in out
    assert errors.strip() == "SIGINT: saving, then stopping."
    again = [*command, "--config.epochs=1000", f"--stop_after={stopped + 1}"]
    done = subprocess.run(again, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Resuming {tmp_path} at step {stopped}." in done.stdout


def test_metrics_are_cut_back_to_the_restored_step(tiny_config, tiny_data, tmp_path):
    run(tiny_config, tmp_path, tiny_data, stop_after=12)
    with (tmp_path / "metrics.jsonl").open("a") as f:  # as a run that died between a save and the next one leaves it
        f.write(json.dumps({"kind": "train", "step": 15, "loss": 1.0, "time": 0.0}) + '\n{"kind": "tra')
    run(tiny_config, tmp_path, tiny_data, stop_after=13)
    steps = [r["step"] for r in logs.read(tmp_path / "metrics.jsonl")]
    assert steps == sorted(steps)
    assert max(steps) == 13


def test_a_run_that_lost_its_report_evaluates_again_and_records_it_once(tiny_config, tiny_data, tmp_path):
    run(tiny_config, tmp_path, tiny_data)
    before = logs.read(tmp_path / "metrics.jsonl")
    (tmp_path / "report.html").unlink()
    assert run(tiny_config, tmp_path, tiny_data) == 0
    assert (tmp_path / "report.html").exists()
    after = logs.read(tmp_path / "metrics.jsonl")
    assert [(r["kind"], r["step"], r["loss"]) for r in after] == [(r["kind"], r["step"], r["loss"]) for r in before]


def test_another_config_is_refused_with_the_names_of_the_keys(tiny_config, tiny_data, tmp_path):
    run(tiny_config, tmp_path, tiny_data, stop_after=2)
    tiny_config.learning_rate, tiny_config.optimizer.momentum = 0.1, 0.8
    with pytest.raises(UserError, match=r"learning_rate is 0.05, now 0.1; optimizer.momentum is None, now 0.8"):
        run(tiny_config, tmp_path, tiny_data)


def test_free_settings_may_change_on_a_resume(tiny_config, tiny_data, tmp_path, capsys):
    run(tiny_config, tmp_path, tiny_data, stop_after=2)
    tiny_config.log_interval, tiny_config.data.threads = 1, 1
    assert run(tiny_config, tmp_path, tiny_data, stop_after=4) == 0
    out = capsys.readouterr().out
    assert "log_interval 5 -> 1" in out
    assert "data.threads 2 -> 1" in out


def test_another_decoder_version_is_refused_on_a_resume(tiny_config, tiny_data, tmp_path):
    run(tiny_config, tmp_path, tiny_data, stop_after=1)
    record = json.loads((tmp_path / "config.json").read_text())
    record["preprocessing"]["decoder"]["version"] = "0.1"
    logs.write_json(tmp_path / "config.json", record)
    with pytest.raises(UserError, match=r"opencv 0\.1, here is"):
        run(tiny_config, tmp_path, tiny_data)


def test_changed_data_are_refused_on_a_resume(tiny_config, tiny_data, tmp_path):
    run(tiny_config, tmp_path, tiny_data, stop_after=1)
    record = json.loads((tmp_path / "config.json").read_text())
    record["dataset"]["fingerprint"]["train"] = "0" * 64
    logs.write_json(tmp_path / "config.json", record)
    with pytest.raises(UserError, match="data set has changed"):
        run(tiny_config, tmp_path, tiny_data)


def test_a_diverging_run_stops_names_the_step_and_saves_nothing_bad(tiny_config, tiny_data, tmp_path):
    tiny_config.learning_rate, tiny_config.warmup_epochs = 1e38, 0.0
    with pytest.raises(RunError, match=r"not finite at step"):
        run(tiny_config, tmp_path, tiny_data)
    step = checkpoint.latest_step(tmp_path / "checkpoints")
    if step is not None:
        assert all(np.isfinite(leaf).all() for _, leaf in final_state(tmp_path))


def test_dry_run_prints_the_plan_and_writes_nothing(tiny_config, tiny_data, tmp_path, capsys):
    assert run(tiny_config, tmp_path / "run", tiny_data, dry_run=True) == 0
    out = capsys.readouterr().out
    for text in ("26 of 8 images = 4 epochs", "peak 0.05", "learning_rate = 0.05", "memory a device", "fc/kernel"):
        assert text in out
    assert not (tmp_path / "run").exists()


def test_workdir_with_checkpoints_but_no_config_is_refused(tiny_config, tiny_data, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        run(tiny_config, tmp_path, tiny_data)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--config.dataset=tinny",
            r"tinny is not in .*Did you mean 'tiny'.* python -m imagenet_jax.prepare folder --name=tinny .*Prepared there: tiny",
        ),
        ("--config.model.name=resnet5O", r"No model 'resnet5O'. Did you mean .*'resnet50'"),
        ("--config.epoch=3", r"No config key 'epoch'. Did you mean 'epochs'"),
        ("--config.epochs=many", r"epochs"),
        ("--config.warmup_epochs=6", r"warmup_epochs=6 is not shorter than the training, epochs=6"),
        ("--config.bn_group=3", r"batch_size=8 does not divide into BN groups of 3 .*batch_size=6 or 9"),
        ("--config.batch_size=0", r"batch_size=0 must be greater than 0"),
        ("--config.schedule=cosin", r"No schedule 'cosin'. Did you mean 'cosine'"),
        ("--config.optimizer.name=sdg", r"No optimizer 'sdg'. Did you mean 'sgd'"),
        ("--config.lr_scaling=lin", r"No lr_scaling 'lin'"),
        ("--config.data.decoder=pil", r"No decoder 'pil'"),
        ("--config.train_split=trian", r"has no split 'trian'. It has: train \(52\), validation \(21\)"),
        ("--config.augment=(('flipp',{}),)", r"No augmentation 'flipp'. Did you mean 'flip'"),
        ("--config.model.dtype=float31", r"No dtype 'float31'"),
        ("--workdir=gs://bucket/runs/r50", r"gs://bucket/runs/r50 is no directory: mount the bucket"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(whole_run, tiny_data, tmp_path, flag, message):
    _, file = whole_run
    with pytest.raises(UserError, match=message):
        entry.main([f"--config={file}", f"--workdir={tmp_path / 'run'}", f"--data_dir={tiny_data}", flag])
    assert not (tmp_path / "run").exists()


def test_batch_that_devices_do_not_divide(tiny_config):
    with pytest.raises(UserError, match=r"batch_size=8 does not divide into 3 devices \(8 = 2 x 3 \+ 2\).*batch_size=6 or 9"):
        validate.config(tiny_config, devices=3)


def test_advice_can_be_followed_in_the_same_workdir_while_nothing_is_saved(tiny_config, tiny_data, tmp_path):
    tiny_config.learning_rate, tiny_config.warmup_epochs = 1e38, 0.0
    with pytest.raises(RunError, match="not finite"):
        run(tiny_config, tmp_path, tiny_data)
    tiny_config.learning_rate = 0.05
    assert run(tiny_config, tmp_path, tiny_data, stop_after=2) == 0
    assert infer.record.read(tmp_path)["config"]["learning_rate"] == 0.05


def test_a_reader_that_goes_away_does_not_end_the_run(whole_run, tiny_data, tmp_path):
    _, file = whole_run
    flags = f"--config={file} --workdir={tmp_path / 'run'} --data_dir={tiny_data}"
    shell = f"set -o pipefail; {sys.executable} -m imagenet_jax.main {flags} | grep -m2 ^step"
    subprocess.run(["bash", "-c", shell], capture_output=True, timeout=120, check=False)
    assert checkpoint.latest_step(tmp_path / "run" / "checkpoints") == 39


def test_a_killed_preparation_of_the_digits_is_made_again(tmp_path):
    (tmp_path / "digits" / ".partial-1.0.0" / "data").mkdir(parents=True)
    c = config.default()
    c.dataset = "digits"
    train_data, eval_data = train.open_data(config.plain(c), tmp_path)
    assert len(train_data) + len(eval_data) == 1797


def test_a_mistake_ends_in_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "imagenet_jax.main", "--config=resnet51", f"--workdir={tmp_path}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: No config file 'resnet51'")
    assert done.stderr.count("\n") == 1


def test_a_second_signal_changes_nothing():
    with runtime.StopSignal() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received is signal.SIGTERM
