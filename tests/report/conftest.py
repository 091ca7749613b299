"""A small synthetic run directory in the format of config.json, metrics.jsonl and eval/."""

import json

import numpy as np
import pytest
from PIL import Image

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DECODER = {"name": "opencv", "version": "5.0.0"}
PREPROCESSING = {
    "image_size": 32, "crop_ratio": 1.0, "antialias": True, "mean": [127.5] * 3, "std": [64.0] * 3, "decoder": DECODER,
}  # fmt: skip


def config_json(names, **config):
    return {
        "format": 1,
        "config": {"batch_size": 32, "optimizer": {"name": "sgd", "learning_rate": 0.1}, **config},
        "dataset": {
            "name": "digits", "version": "1.0.0", "train_split": "train", "train_images": 1437,
            "eval_split": "validation", "eval_images": 2 * len(names), "classes": names,
            "fingerprint": {"train": "a1b2c3", "eval": "d4e5f6"},
        },
        "preprocessing": PREPROCESSING,
        "model": {"name": "resnet20", "parameters": 272474, "flops_per_image": 81234567},
        "steps": {"total": 400, "per_epoch": 44.9},
        "versions": {"imagenet_jax": "0.1.0", "jax": "0.10.2", "python": "3.11.9"},
        "git_commit": "0123abcd",
        "devices": {"platform": "cpu", "kind": "cpu", "count": 1, "processes": 1},
        "started": "2026-11-23T10:00:00+00:00",
    }  # fmt: skip


def metrics(ema):
    start = 1795428000.0  # 2026-11-23T10:00:00+00:00
    for step in range(100, 401, 100):
        common = {"step": step, "epoch": step / 44.9}
        yield {
            "kind": "train", **common, "loss": 200 / step, "top1": step / 500, "learning_rate": 0.1,
            "images_per_second": 180.0, "data_wait": 0.02, "time": start + step,
        }  # fmt: skip
        for weights in ("raw", "ema") if ema else ("raw",):
            yield {
                "kind": "eval", **common, "split": "validation", "weights": weights, "images": 20, "loss": 100 / step,
                "top1": step / 450, "top5": 0.99, "time": start + step + 1,
            }  # fmt: skip


def confusion(classes):
    """Two images a class: both right, but one of class 3 taken for 5, and two of class 7 for 1."""
    matrix = 2 * np.eye(classes, dtype=np.int64)
    matrix[3, 3], matrix[3, 5] = 1, 1
    matrix[7, 7], matrix[7, 1] = 0, 2
    return matrix


def evaluation(names, ema):
    per_class = [
        {"index": i, "name": name, "images": 2, "precision": None if i == 7 else 0.875, "recall": 0.75, "f1": 0.625}
        for i, name in enumerate(names)
    ]
    macro = {"classes": len(per_class), "precision": 0.8125, "recall": 0.6875, "f1": 0.5625}
    result = {"loss": 0.4321, "top1": 0.8537, "top5": 0.9876, "macro": macro, "per_class": per_class}
    guesses = [{"index": i, "name": names[i], "probability": p} for i, p in ((3, 0.7), (5, 0.2), (1, 0.1))]
    samples = [
        {
            "thumbnail": f"digits-validation/{k:08d}.jpg", "file_name": f"photo {k}.png", "label": label,
            "label_name": names[label], "raw": guesses, "ema": guesses if ema else None,
        }
        for k, label in enumerate((3, 5))
    ]  # fmt: skip
    return {
        "dataset": "digits", "split": "validation", "step": 400, "images": 2 * len(names), "decoder": DECODER,
        "preprocessing": PREPROCESSING, "classes": names, "raw": result,
        "ema": {**result, "top1": 0.8642, "loss": 0.3987} if ema else None, "samples": samples,
    }  # fmt: skip


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, names=..., ema=..., **config) writes a complete finished run and returns its directory."""

    def make(name="digits", names=NAMES, ema=True, **config):
        work = tmp_path / name
        (work / "eval" / "digits-validation").mkdir(parents=True)
        (work / "config.json").write_text(json.dumps(config_json(names, **config)))
        (work / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics(ema)))
        content = evaluation(names, ema)
        (work / "eval" / "digits-validation.json").write_text(json.dumps(content))
        matrices = {f"confusion_{weights}": confusion(len(names)) for weights in (("raw", "ema") if ema else ("raw",))}
        np.savez(work / "eval" / "digits-validation.npz", **matrices)
        for sample in content["samples"]:
            Image.new("RGB", (32, 32), "grey").save(work / "eval" / sample["thumbnail"])
        return work

    return make
