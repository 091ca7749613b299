"""Config files and their overrides; every recipe that ships can be loaded and is documented."""

import pathlib

import numpy as np
import pytest

from imagenet_jax import config, validate
from imagenet_jax.errors import UserError
from imagenet_jax.plan import Plan

CONFIGS = sorted(pathlib.Path(config.CHECKOUT, "configs").glob("*.py"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda f: f.stem)
def test_every_config_is_valid_and_states_its_claim(file):
    c = config.load(str(file), [])
    validate.config(c, devices=1)
    header = file.read_text().split('"""')[1]
    for line in ("Target:", "Measured:", "Command:"):
        assert line in header
    assert f"--config=configs/{file.name}" in header


def test_overrides_change_values_of_every_type():
    flags = ["epochs=3", "model.name=resnet18", "augment=(('flip',{}),)", "optimizer.nesterov=True", "mean=(0.1,0.2,0.3)"]
    c = config.load("resnet50", [f"--config.{flag}" for flag in flags])
    assert (c.epochs, c.model.name, c.augment, c.optimizer.nesterov) == (3.0, "resnet18", (("flip", {}),), True)
    assert c.mean == (0.1, 0.2, 0.3)


def test_names_find_the_recipes_that_come_with_the_package():
    for name in ("resnet50", "configs/resnet50.py", "resnet50.py"):
        assert config.find(name).samefile(config.CHECKOUT / "configs" / "resnet50.py")
    with pytest.raises(UserError, match=r"No config file 'resnet51'.*cifar10, cifar10_airbench, .*vgg16, vit_b16_web, vit_s16"):
        config.find("resnet51")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x = 1", r"must return config.default\(\)"),
        ("def get_config(): return 1", r"must return config.default\(\)"),
        ("def get_config():\n  c = d()\n  c.epoch = 1\n  return c", "No config key 'epoch'. Did you mean 'epochs'"),
        ("def get_config():\n  c = d()\n  c.model.nam = 'x'\n  return c", "No config key 'model.nam'. Did you mean 'model.name'"),
        ("def get_config():\n  c = d()\n  del c.seed\n  return c", "seed is gone"),
        ("def get_config(:", r"odd.py, line 2: SyntaxError: invalid syntax"),
        ("def get_config():\n  c = d()\n  c.epochs = '90'\n  return c", r"odd.py, line 4: TypeError: .*'epochs'"),
        ("import nothing_like_it", r"odd.py, line 2: ModuleNotFoundError: No module named 'nothing_like_it'"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, body, message):
    file = tmp_path / "odd.py"
    file.write_text("from imagenet_jax.config import default as d\n" + body)
    with pytest.raises(UserError, match=message):
        config.load(str(file), [])


def test_settings_of_the_model_are_set_by_dotted_key():
    c = config.load("resnet50", ["--config.model.settings.zero_init_last_bn=True", "--config.epochs=2"])
    assert c.model.settings.to_dict() == {"zero_init_last_bn": True}
    assert c.epochs == 2.0


def test_differences_are_named_by_dotted_key():
    a = config.plain(config.default())
    c = config.default()
    c.optimizer.momentum, c.seed = 0.5, 3
    assert config.differences(a, config.plain(c)) == {"optimizer.momentum": (None, 0.5), "seed": (0, 3)}
    assert config.differences(a, a) == {}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("weight_decay", -1.0, "weight_decay=-1.0 is negative"),
        ("label_smoothing", 1.0, r"must lie in \[0, 1\)"),
        ("mixup_alpha", -0.2, "mixup_alpha=-0.2 is negative"),
        ("cutmix_alpha", -1.0, "cutmix_alpha=-1.0 is negative"),
        ("mix_switch", 1.1, r"mix_switch=1.1 must lie in \[0, 1\]"),
        ("mix_probability", -0.1, r"mix_probability=-0.1 must lie in \[0, 1\]"),
        ("repeats", 0, "repeats=0 must be greater than 0"),
        ("train_sizes", ((1, 128),), "epochs growing from 0"),
        ("train_sizes", ((0, 128), (90, 160)), "to less than epochs=90"),
        ("train_sizes", ((0, 128), (8, 160), (4, 176)), "epochs growing from 0"),
        ("bce_target_threshold", 0.2, "is for sigmoid losses"),
        ("crop_ratio", 1.5, r"must lie in \(0, 1\]"),
        ("epochs", float("nan"), "epochs=nan is no finite number"),
        ("no_weight_decay", ("(",), "is no regular expression"),
        ("eval_batch_size", 5, "eval_batch_size=5 does not divide into 2 devices"),
        ("model.param_dtype", "bfloat16", "would lose every change of less than a thousandth"),
        ("mean", (123.7, 116.3, 103.5), "are of images in 0 .. 1. Divide those of images in 0 .. 255 by 255"),
        ("std", (0.2, 0.2, float("nan")), "std=.* is not of the form"),
        ("mean", ("a", 0.5, 0.5), "mean=.* is not of the form"),
        ("train_sizes", (1, 2), "train_sizes=.* is not of the form"),
        ("train_sizes", ((0, 32.5),), "train_sizes=.* is not of the form"),
        ("schedule_points", (1, 2), "schedule_points=.* is not of the form"),
        ("no_weight_decay", (1,), "no_weight_decay=.* is not of the form"),
        ("decay_at", (30.0, 60.0), "must be shares of the training, between 0 and 1"),
        ("cooldown_epochs", 91.0, "warmup_epochs=0 and cooldown_epochs=91 do not fit into epochs=90"),
        ("seed", -1, r"seed=-1 must lie in 0 .. 2\^32 - 1"),
        ("stall_seconds", 1e12, "stall_seconds=1e.12 is more than a year"),
    ],
)
def test_values_that_cannot_be(key, value, message):
    c = config.default()
    c.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        validate.config(c, devices=2)


@pytest.mark.parametrize(
    ("accumulate", "group", "message"),
    [
        (3, 0, r"batch_size=64 does not divide into 8 devices, 3 parts each"),
        (2, 8, r"accumulate=2 leaves parts of 4 images to each of 8 devices, which BN groups of 8 do not fill"),
        (0, 0, r"accumulate=0 must be greater than 0"),
    ],
)
def test_parts_that_do_not_come_out_even_are_refused(accumulate, group, message):
    c = config.default()
    c.batch_size, c.accumulate, c.bn_group = 64, accumulate, group
    with pytest.raises(UserError, match=message):
        validate.config(c, devices=8)


def test_a_variant_stands_behind_a_colon():
    assert config.load("resnet50_ffcv:32", []).epochs == 32
    assert config.load("configs/resnet50_ffcv.py:32", ["--config.batch_size=64"]).batch_size == 64
    assert config.load("resnet50_ffcv", []).epochs == 16
    with pytest.raises(UserError, match=r"No variant '31' of .*resnet50_ffcv.py. Known: 16, 24, 32"):
        config.load("resnet50_ffcv:31", [])
    with pytest.raises(UserError, match=r"resnet50.py has no variants"):
        config.load("resnet50:16", [])


def test_settings_of_the_optimizer_are_keys_beside_its_name():
    c = config.load("resnet18", ["--config.optimizer.name=adamw", "--config.optimizer.b2=0.95"])
    assert c.optimizer.name == "adamw"
    assert c.optimizer.b2 == 0.95


def test_another_optimizer_begins_from_its_own_defaults():
    assert config.load("resnet18", []).optimizer.to_dict().keys() == {"name", "nesterov"}
    assert config.load("resnet18", ["--config.optimizer.name=adamw"]).optimizer.to_dict() == {"name": "adamw"}
    assert config.load("resnet18", ["--config.optimizer.name=sgd"]).optimizer.nesterov is False  # it was that one before


def test_settings_of_other_types_are_left_to_whoever_knows_them(tmp_path):
    file = tmp_path / "locked.py"
    file.write_text("from imagenet_jax import config\ndef get_config():\n  return config.default().lock()")
    assert config.load(str(file), ["--config.optimizer.momentum=0.5"]).optimizer.momentum == 0.5
    assert config.load("resnet18", ["--config.optimizer.nesterov=false"]).optimizer.nesterov == "false"


@pytest.mark.parametrize("key", ["optimizer.a.momentum", "model.settings.a.remat", "model.settings", "optimizer"])
def test_keys_below_settings_are_no_settings(key):
    with pytest.raises(UserError, match=f"No config key '{key}'"):
        config.load("resnet18", [f"--config.{key}=1"])


def test_a_value_that_json_does_not_know_is_named():
    c = config.default()
    c.augment = (("flip", {"probability": np.float32(0.5)}),)
    with pytest.raises(UserError, match="cannot be written down: Object of type float32"):
        config.plain(c)


def test_steps_that_cannot_be_counted_or_evaluated_are_none():
    c = config.plain(config.default()) | {"epochs": 3.0, "batch_size": 10, "eval_interval_epochs": 1e-9}
    assert Plan(c, 100).eval_steps == frozenset(range(1, 30))
    with pytest.raises(UserError, match=r"epochs=1e.09 are 1e.10 steps"):
        Plan(c | {"epochs": 1e9}, 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema_decay": 0.9, "swa_start": 60.0}, "ema_decay=0.9 and swa_start=60: a run keeps one average"),
        ({"swa_start": 90.0}, "swa_start=90 is not before the end, epochs=90"),
        ({"schedule_free": 0.9}, "schedule_free=0.9 takes the place of a falling learning rate, here schedule=cosine"),
        (
            {"schedule_free": 0.9, "schedule": "constant", "cooldown_epochs": 1.0},
            "cooldown_epochs=1. Set --config.schedule=constant",
        ),
        ({"lookahead": 1.0}, r"lookahead=1.0 must lie in \[0, 1\)"),
        ({"sam_rho": -0.1}, "sam_rho=-0.1 is negative"),
        ({"distill.alpha": 0.0}, r"distill.alpha=0.0 must lie in \(0, 1\]"),
        ({"distill.temperature": 0.0}, "distill.temperature=0.0 above 0"),
    ],
)
def test_averages_sharpness_and_teachers_that_make_no_sense(changes, message):
    c = config.default()
    c.model.name = "resnet18"
    c.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        validate.config(c, devices=1)
