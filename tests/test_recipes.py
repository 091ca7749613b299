"""Each recipe against a table of what its source says: steps, learning rates, decay, views, crop, parameters. Nothing runs."""

import functools
from typing import NamedTuple

import jax
import pytest

from imagenet_jax import build, config, configs, models, recipes, tree
from imagenet_jax.data.augmentation import augment
from imagenet_jax.models.published import PUBLISHED
from imagenet_jax.optim import masks
from imagenet_jax.plan import Plan

CROP = ["random_resized_crop", "flip"]
NONE, NORM, NORM_BIAS, ALL = "none", "norm", "norm and bias", "all but kernels"  # what does not decay


class Source(NamedTuple):
    """What a recipe's source states. `rates`: epoch -> learning rate. `crop`: evaluation's size and the size resized to."""

    model: str
    batch: int
    steps: int
    optimizer: str
    rates: dict[float, float]
    decay: float  # as optim/optimizers.py takes it
    spared: str
    views: list[str]
    train: int  # pixels at the beginning
    crop: tuple[int, float]


TV = ["trivial_augment", "random_erasing"]
TIMM = ["rand_augment_timm", "random_erasing"]
SOURCES = {
    "resnet50": Source("resnet50", 256, 450_410, "sgd", {29.9: 0.1, 30: 0.01, 60: 1e-3}, 1e-4, NONE, CROP, 224, (224, 256)),
    "resnet18": Source("resnet18", 256, 450_410, "sgd", {29.9: 0.1, 30: 0.01, 60: 1e-3}, 1e-4, NONE, CROP, 224, (224, 256)),
    "vgg16": Source("vgg16", 256, 450_410, "sgd", {0: 0.01, 30: 1e-3, 60: 1e-4}, 1e-4, NONE, CROP, 224, (224, 256)),
    "resnet50_v2": Source(
        "resnet50", 1024, 750_684, "sgd", {0: 0.005, 2.5: 0.2525, 5: 0.5, 302.5: 0.25, 600: 0},
        2e-5, NORM, CROP + TV, 176, (224, 232),
    ),
    "efficientnet_v2_s": Source(
        "efficientnet_v2_s", 1024, 750_684, "sgd", {0: 0.005, 5: 0.5, 600: 0}, 2e-5, NORM, CROP + TV, 300, (384, 384)
    ),
    "resnet50_rsb:a1": Source(
        "resnet50", 2048, 375_342, "lamb", {0: 5e-7, 5: 5e-3, 600: 1e-6}, 0.01, NORM_BIAS, [*CROP, TIMM[0]], 224, (224, 235.79)
    ),
    "resnet50_rsb:a2": Source(
        "resnet50", 2048, 187_671, "lamb", {5: 5e-3, 300: 1e-6}, 0.02, NORM_BIAS, [*CROP, TIMM[0]], 224, (224, 235.79)
    ),
    "resnet50_rsb:a3": Source(
        "resnet50", 2048, 62_557, "lamb", {5: 8e-3, 52.5: 4.0005e-3, 100: 1e-6},
        0.02, NORM_BIAS, [*CROP, TIMM[0]], 160, (224, 235.79),
    ),
    "resnet18_rsb:a1": Source(
        "resnet18", 2048, 375_342, "lamb", {0: 5e-7, 5: 5e-3, 600: 1e-6}, 0.01, NORM_BIAS, [*CROP, TIMM[0]], 224, (224, 235.79)
    ),
    "resnet18_rsb:a3": Source(
        "resnet18", 2048, 62_557, "lamb", {5: 8e-3, 100: 1e-6}, 0.02, NORM_BIAS, [*CROP, TIMM[0]], 160, (224, 235.79)
    ),
    "resnet50_ffcv:16": Source(
        "resnet50", 4096, 5_005, "sgd", {0: 1.7e-4, 1: 0.850085, 2: 1.7, 9: 0.85, 16: 0},
        1e-4, "bn by name", CROP, 160, (256, 292.57),
    ),
    "resnet50_ffcv:88": Source(
        "resnet50", 4096, 27_525, "sgd", {0: 1.7e-4, 2: 1.7, 45: 0.85, 88: 0}, 1e-4, "bn by name", CROP, 160, (256, 292.57)
    ),
    "resnet18_ffcv:16": Source(
        "resnet18", 1024, 20_018, "sgd", {2: 0.5, 9: 0.25, 16: 0}, 5e-5, "bn by name", CROP, 160, (256, 292.57)
    ),
    "resnet50_mosaic": Source(
        "resnet50", 2048, 20_268, "sgdw", {8: 2.048, 20.2: 1.024, 32.4: 0}, 5e-4 / 2.048, NONE, CROP, 88, (224, 232)
    ),
    "resnet50_nvidia:90": Source(
        "resnet50", 2048, 56_301, "sgd", {8: 2.048, 49: 1.024, 90: 0}, 1 / 32768, NORM, CROP, 224, (224, 256)
    ),
    "resnet50_nvidia:250": Source("resnet50", 2048, 156_392, "sgd", {8: 2.048, 250: 0}, 1 / 32768, NORM, CROP, 224, (224, 256)),
    "resnet50_algoperf": Source(
        "resnet50", 1024, 140_000, "sgd", {5.594873: 4.13, 101.267: 4.13e-3, 111.89: 4.13e-3}, 5.67e-6, NONE, CROP, 224, (224, 256)
    ),
    "resnet50_lars": Source("resnet50", 4096, 14_701, "lars", {5: 10, 26: 2.5, 47: 0}, 2e-4, NORM_BIAS, CROP, 224, (224, 256)),
    "regnet_y_400mf": Source(
        "regnet_y_400mf", 1024, 125_114, "sgd", {0: 0.08, 5: 0.8, 52.5: 0.4, 100: 0}, 5e-5, NONE, CROP, 224, (224, 256)
    ),
    "mobilenet_v3_large": Source(
        "mobilenet_v3_large", 1024, 750_684, "rmsprop", {0: 0.064, 1.99: 0.064, 2.01: 0.062272, 4.01: 0.064 * 0.973**2},
        1e-5, NONE, [*CROP, "auto_augment", "random_erasing"], 224, (224, 256),
    ),
    "efficientnet_b0": Source(
        "efficientnet_b0", 2048, 218_949, "rmsprop", {5: 0.128 * 0.97**2, 7.199: 0.128 * 0.97**2, 7.21: 0.128 * 0.97**3},
        1e-5, NORM, [*CROP, "auto_augment"], 224, (224, 256),
    ),
    "efficientnet_lite0": Source(
        "efficientnet_lite0", 2048, 218_949, "rmsprop", {24.01: 0.128 * 0.97**10},
        1e-5, NORM, [*CROP, "auto_augment"], 224, (224, 256),
    ),
    "nfnet_f0": Source(
        "nfnet_f0", 4096, 112_603, "sgd", {5: 1.6, 182.5: 0.8, 360: 0}, 2e-5, ALL, [*CROP, "rand_augment"], 192, (256, 288)
    ),
    "convnext_t": Source(
        "convnext_tiny", 4096, 93_835, "adamw", {20: 4e-3, 160: 2.0005e-3, 300: 1e-6}, 0.05, ALL, CROP + TIMM, 224, (224, 256)
    ),
    "deit_s16": Source("deit_s_16", 1024, 375_342, "adamw", {0: 1e-6, 5: 1e-3, 300: 1e-5}, 0.05, ALL, CROP + TIMM, 224, (224, 256)),
    "deit_b16": Source("deit_b_16", 1024, 375_342, "adamw", {0: 1e-6, 5: 1e-3, 300: 1e-5}, 0.05, ALL, CROP + TIMM, 224, (224, 256)),
    "vit_s16:90": Source(
        "vit_s_16", 1024, 111_477, "adamw", {8.0736: 1e-3, 90: 0}, 0.1, ALL, [*CROP, "rand_augment"], 224, (224, 256)
    ),
    "vit_s16:300": Source(
        "vit_s_16", 1024, 371_588, "adamw", {8.0736: 1e-3, 300: 0}, 0.1, ALL, [*CROP, "rand_augment"], 224, (224, 256)
    ),
    "mixer_b16:300": Source(
        "mixer_b_16", 4096, 92_897, "adamw", {32.295: 1e-3, 166.147: 5.05e-4, 300: 1e-5},
        0.1, ALL, [*CROP, "rand_augment"], 224, (224, 256),
    ),
    "imagenet21k:semantic": Source(
        "resnet50", 512, 1_728_160, "adam", {0: 1.5e-5, 8: 3e-4, 44: 1.5e-4, 80: 1.5e-9},
        1e-4, NORM_BIAS, ["random_resized_crop", "random_erasing", "rand_augment"], 224, (224, 224),
    ),
    "imagenet21k:softmax": Source(
        "resnet50", 512, 1_728_160, "adam", {0: 1.5e-5, 8: 3e-4, 44: 1.5e-4, 80: 1.5e-9},
        1e-4, NORM_BIAS, ["random_resized_crop", "random_erasing", "rand_augment"], 224, (224, 224),
    ),
    "imagenet21k:sigmoid": Source(
        "vit_b_16", 4096, 1_036_078, "adamw", {2.8955: 1e-3, 151.44775: 5e-4, 300: 0},
        0.1, ALL, [*CROP, "rand_augment"], 224, (224, 256),
    ),
    "imagenet21k_to_1k": Source(
        "vit_b_16", 512, 20_000, "sgd", {0.2018: 0.03, 4.1377: 0.015, 8.0737: 0}, 0, NONE, CROP, 384, (384, 448)
    ),
    "vit_b16_web": Source(
        "vit_b_16", 4096, 517_822, "adamw", {0.13519: 8e-4, 3.567: 4e-4, 7: 0}, 0.1, ALL, CROP, 224, (224, 256)
    ),
    "cifar10_airbench": Source(
        "airbench94", 1024, 476, "sgd", {0: 0.3, 109 / 48.828125: 1.5, 476 / 48.828125: 0.105},
        0.0153 / 11.5, NONE, ["flip", "translate"], 32, (32, 32),
    ),
}  # fmt: skip


def images(c):
    """Of the training split."""
    return configs.IMAGES[c["dataset"], c["train_split"]]


@functools.cache
def loaded(name):
    return config.plain(config.resolve(config.load(name, [])))


@pytest.mark.parametrize("name", SOURCES)
def test_a_recipe_is_what_its_source_says(name):
    c, source = loaded(name), SOURCES[name]
    plan = Plan(c, images(c))
    rate, peak = build.schedule(c, plan)
    assert (c["model"]["name"], c["batch_size"], plan.total) == (source.model, source.batch, source.steps)
    assert c["optimizer"]["name"] == source.optimizer
    build.optimizer(c)  # its settings exist
    for epoch, expected in source.rates.items():
        assert float(rate(round(epoch * plan.per_epoch))) == pytest.approx(expected, rel=2e-3, abs=2e-4 * peak)
    assert c["weight_decay"] == pytest.approx(source.decay)
    assert [entry[0] for entry in c["augment"]] == source.views
    augment.chain(c["augment"])
    assert (c["train_sizes"] or [[0, c["image_size"]]])[0][1] == source.train
    assert (c["image_size"], c["image_size"] / c["crop_ratio"]) == pytest.approx(source.crop, abs=0.02)


@pytest.mark.parametrize("name", {source.model + source.spared: name for name, source in SOURCES.items()}.values())
def test_parameters_and_which_of_them_decay(name):
    c, source = loaded(name), SOURCES[name]
    model = build.model(c, num_classes=10 if source.model == "airbench94" else 1000)
    params = jax.eval_shape(build.state_init(model, c), jax.random.key(0)).params
    counted = tree.count(params)
    # Without a class token (384) and with fixed positions (197 x 384), ViT-S/16 has that many fewer; ViT-B/16 loses only the token.
    fewer = {"sincos2d": 198 * 384, "learnt": 2 * 768}[c["model"]["settings"].get("positions", "learnt")]
    assert counted == PUBLISHED[source.model].parameters - (fewer if "class_token" in c["model"]["settings"] else 0)
    shapes = dict(tree.paths(params))
    parts = {path.rpartition("/")[0] for path in shapes if path.endswith("/scale")}  # normalisations
    expected = {
        NONE: lambda path: False,
        NORM: lambda path: path.rpartition("/")[0] in parts,
        NORM_BIAS: lambda path: path.rpartition("/")[0] in parts or path.endswith("/bias"),
        ALL: lambda path: not path.endswith("kernel"),
        "bn by name": lambda path: path.rpartition("/")[0] in parts and "downsample" not in path,
    }[source.spared]
    decays = dict(tree.paths(masks.decayed(params, c["no_weight_decay"])))
    assert {path for path, does in decays.items() if not does} == {path for path in shapes if expected(path)}


def test_ffcv_changes_to_192_pixels_where_its_ramp_rounds_to_it():
    """get_resolution of its train_imagenet.py, evaluated by hand: 176 / 32 = 5.5 rounds to 6, 5.33 and 5.45 to 5."""
    changes = {"16": 12, "24": 19, "32": 25, "40": 32, "56": 45, "88": 71}
    assert {v: loaded(f"resnet50_ffcv:{v}")["train_sizes"] for v in recipes.FFCV_RAMPS} == {
        v: [[0, 160], [epoch, 192]] for v, epoch in changes.items()
    }


def test_every_recipe_is_in_the_table(monkeypatch):
    monkeypatch.setattr(configs, "traffic", lambda model: 0.0)  # traces the model: seconds, for all of them
    known = {name.partition(":")[0] for name in SOURCES} | {"cifar10"}
    assert {row.name.partition(":")[0] for row in configs.rows()} == known


@pytest.mark.slow
def test_the_table_counts_images_and_operations(capsys):
    configs.main([])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["resnet50"].split()[1:4] == ["90", "115.3", "M"]
    assert float(lines["resnet50"].split()[4]) == pytest.approx(115.305e6 * 3 * 2 * 4.089e9 / 1e18, rel=0.01)
    # 8 H100: 115.3 M images x (24.5 GFLOP / 700 TFLOP/s + 308.5 MB / 3 TB/s) / 8
    assert float(lines["resnet50"].split()[5]) == pytest.approx(
        115.305e6 * (24.535e9 / 700e12 + 308.5e6 / 3e12) / 8 / 3600, rel=0.02
    )
    assert "73.8 % top-1, with mirror images" in lines["resnet50_ffcv:16"]
    assert "80.4 % top-1" in lines["resnet50_rsb:a1"]


def test_every_model_of_a_recipe_takes_its_settings():
    for name in SOURCES:
        c = loaded(name)
        models.create(c["model"]["name"], num_classes=10, **c["model"]["settings"])
