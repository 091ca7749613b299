"""Runs that begin from other weights: what they take from them, what stays still, and resume in every bit without them."""

import json
import shutil

import jax
import numpy as np
import pytest

from imagenet_jax import build, checkpoint, config, finetune, infer, models, sharding, train, tree
from imagenet_jax.errors import UserError
from imagenet_jax.pretrained import names, weights

SEEN = weights.Preprocessing(16, 0.9, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def save(folder, classes="abcde", seed=0):
    """A folder of weights of a ResNet-8, of about the size of trained ones."""
    model = models.create("resnet8", num_classes=len(classes), zero_init_last_bn=True)
    rng = np.random.default_rng(seed)
    centre = {"scale": 1, "var": 1}

    def draw(path, leaf):
        return rng.normal(centre.get(path.rpartition("/")[2], 0), 0.1, leaf.shape).astype(leaf.dtype)

    variables = tree.map_with_path(draw, names.variables_like(model))
    settings = {"zero_init_last_bn": True}
    weights.save(folder, weights.Weights(model, variables, "resnet8", settings, tuple(classes), SEEN, {"file": "x"}))
    return folder


@pytest.fixture
def c(tiny_config, tmp_path):
    """Fine-tunes on `tiny` from a folder of weights of five other classes, for 13 steps."""
    for key in config.PREPROCESSING:
        tiny_config[key] = None
    tiny_config.model.name = None
    tiny_config.init_from = str(save(tmp_path / "weights"))
    tiny_config.epochs, tiny_config.warmup_epochs, tiny_config.eval_interval_epochs = 2.0, 0.0, 0.0
    tiny_config.learning_rate, tiny_config.layer_decay, tiny_config.frozen = 0.01, 0.7, ("^conv1/", "^bn1/")
    return tiny_config


def run(c, workdir, data_dir, **kwargs):
    return train.train(c, workdir, data_dir=data_dir, devices=jax.devices()[:1], **kwargs)


def state_of(workdir):
    """(path, array) of every leaf of the newest checkpoint."""
    record = infer.record.read(workdir)
    mesh = sharding.make_mesh(jax.devices()[:1])
    model = build.model(record["config"], len(record["dataset"]["classes"]))
    like = build.abstract_state(model, record["config"], mesh)
    folder = workdir / "checkpoints"
    return {path: np.asarray(leaf) for path, leaf in tree.paths(checkpoint.restore(folder, checkpoint.latest_step(folder), like))}


def test_stopped_and_resumed_without_the_weights_equals_uninterrupted_in_every_bit(c, tiny_data, tmp_path, capsys):
    assert run(c, tmp_path / "whole", tiny_data) == 0
    assert run(c, tmp_path / "run", tiny_data, stop_after=6) == 0
    shutil.move(c.init_from, tmp_path / "elsewhere")
    capsys.readouterr()
    assert run(c, tmp_path / "run", tiny_data) == 0
    out = capsys.readouterr().out
    assert "not needed any more, and cannot be read" in out
    assert "new head, zero, for 4 classes" in out
    whole, resumed = state_of(tmp_path / "whole"), state_of(tmp_path / "run")
    assert whole.keys() == resumed.keys()
    for path, leaf in whole.items():
        assert leaf.tobytes() == resumed[path].tobytes(), path
    assert infer.record.read(tmp_path / "run")["init"] == infer.record.read(tmp_path / "whole")["init"]


def test_what_the_config_leaves_open_is_as_the_weights_say_and_what_it_says_wins_and_is_printed(c, tiny_data, tmp_path, capsys):
    c.crop_ratio = 0.5
    assert run(c, tmp_path / "run", tiny_data, stop_after=1) == 0
    out = capsys.readouterr().out
    assert "crop_ratio 0.5 instead of their 0.9" in out
    assert out.count("instead of their") == 1
    assert "464 of 74,900 parameters frozen" in out
    assert "learning rate times 0.7 a layer" in out
    record = infer.record.read(tmp_path / "run")
    wanted = json.loads(json.dumps(SEEN._replace(crop_ratio=0.5)._asdict()))
    assert {key: record["config"][key] for key in wanted} == wanted
    assert {key: record["preprocessing"][key] for key in wanted} == wanted
    assert record["config"]["model"]["settings"] == {"zero_init_last_bn": True}
    found = weights.load(tmp_path / "weights")
    assert record["init"]["sha256"] == finetune.content_hash(found.variables)
    loaded = infer.load(tmp_path / "run", sharding.make_mesh(jax.devices()[:1]))
    assert (loaded.pixels.engine.interpolation, loaded.pixels.crop_ratio, loaded.mean) == ("bicubic", 0.5, (0.5,) * 3)


def test_only_what_is_frozen_stays_as_it_came(c, tiny_data, tmp_path):
    c.weight_decay = 0.1
    run(c, tmp_path / "run", tiny_data, stop_after=3)
    began, now = dict(tree.paths(weights.load(tmp_path / "weights").variables)), state_of(tmp_path / "run")
    for path, leaf in began.items():
        same = leaf.tobytes() == now[path].tobytes()
        assert same == path.startswith(("params/conv1/", "params/bn1/")), path  # its running statistics follow the data
    assert now["params/fc/kernel"].shape == (64, 4)
    for path in ("params/conv1/kernel", "params/bn1/bias"):
        (momentum,) = [now[k] for k in now if k.startswith("opt_state/") and k.endswith(f"trace/{path.removeprefix('params/')}")]
        assert not momentum.any()
        assert now[f"ema/{path}"].tobytes() == now[path].tobytes()


def test_frozen_batch_norm_keeps_its_statistics(c, tiny_data, tmp_path):
    c.bn_frozen, c.frozen = True, ()
    run(c, tmp_path / "run", tiny_data, stop_after=3)
    began, now = dict(tree.paths(weights.load(tmp_path / "weights").variables)), state_of(tmp_path / "run")
    for path, leaf in began.items():
        assert (leaf.tobytes() == now[path].tobytes()) == path.startswith("batch_stats/"), path


def test_a_head_of_the_same_classes_is_kept_and_the_run_begins_with_the_average(c, tiny_data, tmp_path, capsys):
    run(c, tmp_path / "first", tiny_data)
    mesh = sharding.make_mesh(jax.devices()[:1])
    c.init_from, c.frozen = str(tmp_path / "first"), ()
    assert run(c, tmp_path / "second", tiny_data, dry_run=True) == 0
    assert "head kept" in capsys.readouterr().out
    origin = finetune.find(c, tmp_path / "second", mesh)
    assert (origin.said["weights"], origin.said["step"]) == ("ema", 13)
    resolved = config.plain(finetune.resolve(c, origin))
    model = build.model(resolved, 4)
    abstract = build.abstract_state(model, resolved, mesh)
    first = state_of(tmp_path / "first")
    for path, leaf in tree.paths(finetune.variables(origin, model, abstract, "kept")):
        assert leaf.tobytes() == first[f"ema/{path}"].tobytes(), path
    new = dict(tree.paths(finetune.variables(origin, model, abstract, "new")))
    assert {path for path, leaf in new.items() if not leaf.any()} == {"params/fc/kernel", "params/fc/bias"}


def test_the_order_of_classes_counts(c, tiny_data, tmp_path):
    classes = ("blue", "green", "grey", "red")
    origin = finetune.find(c, tmp_path / "run", sharding.make_mesh(jax.devices()[:1]))
    for theirs, head in ((classes, "kept"), (classes[::-1], "new"), (classes[:3], "new")):
        assert finetune.describe(origin._replace(classes=theirs), classes)["head"] == head


def test_a_changed_source_is_noticed_and_not_used(c, tiny_data, tmp_path, capsys):
    run(c, tmp_path / "run", tiny_data, stop_after=1)
    before = infer.record.read(tmp_path / "run")
    save(tmp_path / "weights", seed=1)
    content = json.loads((tmp_path / "weights" / "weights.json").read_text())
    content["preprocessing"]["image_size"] = 24
    (tmp_path / "weights" / "weights.json").write_text(json.dumps(content))
    assert run(c, tmp_path / "run", tiny_data, stop_after=2) == 0
    assert f"holds other weights, sha256 {before['init']['sha256'][:12]} -> " in capsys.readouterr().out
    assert infer.record.read(tmp_path / "run") == before


def test_layers_learn_at_their_own_rates(tiny_config):
    tiny_config.weight_decay = 0.0
    like = names.variables_like(models.create("resnet8", num_classes=4))["params"]
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), like)
    directions = {}
    for decay in (1.0, 0.5):
        tiny_config.layer_decay = decay
        optimizer = build.optimizer(config.plain(tiny_config))
        directions[decay] = dict(tree.paths(optimizer.update(params, optimizer.init(params), params)[0]))
    below = {"conv1": 4, "bn1": 4, "layer1_0": 3, "layer2_0": 2, "layer3_0": 1, "fc": 0}
    for path, direction in directions[0.5].items():
        np.testing.assert_array_equal(direction, directions[1.0][path] * 0.5 ** below[path.split("/")[0]], err_msg=path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": "gone"}, "init_from=gone is no folder"),
        ({"init_from": "."}, "is neither a folder of weights, .* nor a run"),
        ({"model.name": "resnet20"}, "are of resnet8, the config's model is resnet20"),
        ({"frozen": ("layer9",)}, r"frozen has 'layer9', which is found in no parameter's path. They begin with: bn1, conv1"),
        ({"frozen": ("",)}, "leaves no parameter to train"),
        ({"frozen": ("(",)}, "frozen has '\\(', which is no regular expression"),
        ({"layer_decay": 0.0}, r"layer_decay=0.0 must lie in \(0, 1\]"),
        ({"interpolation": "area"}, "No interpolation 'area'"),
        ({"init_from": "", "model.name": None}, "model.name is not set"),
    ],
)
def test_mistakes(c, tiny_data, tmp_path, changes, message):
    c.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        run(c, tmp_path / "run", tiny_data)
    assert not (tmp_path / "run").exists()


def test_settings_that_change_shapes_are_named(c, tiny_data, tmp_path):
    c.model.settings.width = 8
    with pytest.raises(UserError, match=r"do not fit the model: \d+ leaves differ, such as batch_stats/bn1/mean"):
        run(c, tmp_path / "run", tiny_data)
