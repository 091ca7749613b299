"""The training step's benchmark: a run of each command on the CPU, the profile's names, the order of rounds."""

import json
import multiprocessing.connection
import os
import threading
import types

import jax
import pytest

from imagenet_jax.bench import __main__ as command
from imagenet_jax.bench import step as stepping
from imagenet_jax.errors import RunError


def test_each_round_begins_with_another_contestant():
    asked = []
    turns = {name: lambda name=name: asked.append(name) or float(len(asked)) for name in "abc"}
    assert stepping.interleaved(turns, 3) == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}
    assert "".join(asked) == "abcbcacab"


def test_a_profile_counts_the_operations_of_xla():
    event = types.SimpleNamespace
    events = [
        event(duration_ns=2e9, stats=[("hlo_op", "dot.1")]),
        event(duration_ns=1e9, stats=[("hlo_op", "dot.1")]),
        event(duration_ns=5e8, stats=[("hlo_op", "fusion"), ("hlo_module", "jit_step")]),
        event(duration_ns=9e9, stats=[("_src", "thread_pool")]),
    ]
    lines = [types.SimpleNamespace(events=events[:1]), types.SimpleNamespace(events=events[1:])]
    found = stepping.profiled(types.SimpleNamespace(planes=[types.SimpleNamespace(lines=lines)]))
    assert found.most_common() == [("dot.1", 3.0), ("fusion", 0.5)]


class InThreads:
    """In the place of a multiprocessing context: a torchvision that only the fixture can import is not there in a new process."""

    Pipe = staticmethod(multiprocessing.Pipe)

    class Process(threading.Thread):
        exitcode = 0

        def __init__(self, target, args, daemon):
            theirs, *rest = args  # which the other side closes, as it may of a process that has its own
            own = multiprocessing.connection.Connection(os.dup(theirs.fileno()))
            super().__init__(target=target, args=(own, *rest), daemon=daemon)

        def kill(self):
            """It ends when its pipe does."""


@pytest.fixture
def in_threads(monkeypatch, torchvision):
    monkeypatch.setattr(stepping.multiprocessing, "get_context", lambda method: InThreads)
    close = stepping.Torch.close

    def end(peer):
        peer._pipe.close()
        close(peer)

    monkeypatch.setattr(stepping.Torch, "close", end)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's own
def test_the_step_alone_and_beside_torch(in_threads, torch, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(stepping, "SMALL_SIDE", 64)
    arguments = ["step", "--config=resnet18", "--config.batch_size=32", "--config.bn_group=32", "--config.image_size=32"]
    more = ["--config.model.dtype=float32", "--num_classes=10", "--rounds=2", "--steps=1", "--peer=torch", f"--out={tmp_path}"]
    assert command.main([*arguments, *more]) == 0
    shown, found = capfd.readouterr().out, json.loads((tmp_path / "step.json").read_text())
    assert f"resnet18, 32 px, float32, batch 32 on {jax.device_count()} x cpu" in shown
    assert "ours / torch:" in shown
    assert {name: len(rates) for name, rates in found["rounds"].items()} == {"ours": 2, "torch": 2}
    assert found["torch"].startswith(f"torch {torch.__version__}, CPU")
    # 37.0 M multiply-adds at 32 px (1.81 G / 7^2), a backward pass of twice the forward's, 32 images over the devices.
    assert found["account"]["flops"] == pytest.approx(3 * 2 * 37.0e6 * 32 / jax.device_count(), rel=0.3)
    assert sum(seconds for _, seconds in found["operations"]) > 0


@pytest.mark.slow
def test_a_model_that_torch_does_not_have_is_named(in_threads):
    config = {"model": {"name": "resnet8", "dtype": "float32"}, "batch_size": 8, "image_size": 32}
    with pytest.raises(RunError, match=r"--peer=torch: ValueError: Unknown model resnet8"):
        stepping.Torch(config, 10)


@pytest.mark.slow
def test_training_from_files_beside_synthetic_images(tmp_path, capfd):
    arguments = ["train", "--config=quickstart", "--config.batch_size=16", "--rounds=2", "--steps=2", f"--data_dir={tmp_path}"]
    assert command.main([*arguments, f"--out={tmp_path}"]) == 0
    found = json.loads((tmp_path / "train.json").read_text())
    assert set(found["rounds"]) == {"synthetic", "from files", "loader alone"}
    assert all(0 <= share <= 1 for share in found["waits"])
    assert "from files / synthetic:" in capfd.readouterr().out


def test_flags_that_are_no_config_keys_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["step", "--config=quickstart", "--batch=3"])
    assert "unknown arguments: --batch=3" in capsys.readouterr().err
