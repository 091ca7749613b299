"""The journal: what is on disk after a resume, in metrics.jsonl and in TensorBoard's files."""

import json
import struct

from tensorboardX.proto.event_pb2 import Event

from imagenet_jax import logs


def record(step: int, loss: float, kind: str = "train"):
    extra = {"split": "validation", "weights": "raw"} if kind == "eval" else {}
    return {"kind": kind, "step": step, **extra, "loss": loss, "time": 1000.0 + step}


def scalars(workdir):
    """(tag, step) -> value of all event files; a second value for one step would be an error."""
    found = {}
    for file in (workdir / "tensorboard").glob("events*"):
        data, at = file.read_bytes(), 0
        while at < len(data):  # TFRecord framing: length, its crc, content, its crc
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16
            for value in event.summary.value:
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = round(value.simple_value, 3)
    return found


def test_a_resume_cuts_both_back_to_its_step(tmp_path):
    with logs.Journal(tmp_path, 0) as journal:
        for step in (5, 10, 15):
            journal.write(record(step, 1.0))
        journal.write(record(10, 0.5, "eval"))
    assert set(scalars(tmp_path)) == {("train/loss", 5), ("train/loss", 10), ("train/loss", 15), ("eval/validation/raw/loss", 10)}

    with logs.Journal(tmp_path, 10) as journal:  # the evaluation at 10 itself is made again
        journal.write(record(10, 0.4, "eval"))
        journal.write(record(15, 2.0))
    assert [(r["kind"], r["step"], r["loss"]) for r in logs.read(tmp_path / "metrics.jsonl")] == [
        ("train", 5, 1.0), ("train", 10, 1.0), ("eval", 10, 0.4), ("train", 15, 2.0)
    ]  # fmt: skip
    assert scalars(tmp_path) == {
        ("train/loss", 5): 1.0, ("train/loss", 10): 1.0, ("eval/validation/raw/loss", 10): 0.4, ("train/loss", 15): 2.0
    }  # fmt: skip


def test_a_last_line_that_a_crash_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(record(5, 1.0)) + '\n{"kind": "train", "st')
    assert [r["step"] for r in logs.read(path)] == [5]
    assert logs.read(tmp_path / "absent.jsonl") == []
    path.write_bytes(b'{"kind": "train", "step": 5}\n\x00\xff\n5\n{"kind": "train", "step": 6}\n{"kind": "tr')
    assert [r["step"] for r in logs.read(path)] == [5, 6]


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "eval" / "a.json"
    logs.write_json(path, {"a": 1})
    logs.write_json(path, {"a": 2})
    assert logs.read_json(path) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    path.write_text("{")
    assert logs.read_json(path) is None
