"""The probe command: features of every image once, in order, and three counts that are written down."""

import json
import tarfile

import jax
import numpy as np
import pytest

from imagenet_jax import convert, infer, models, probe, sharding
from imagenet_jax.data.reading.sources import open_source
from imagenet_jax.errors import UserError
from imagenet_jax.pretrained import names, weights

SEEN = weights.Preprocessing(16, 0.9, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights of a ResNet-8 of three classes: its features still tell colours apart."""
    model = models.create("resnet8", num_classes=3)
    rng = np.random.default_rng(0)
    like = names.variables_like(model)
    variables = {
        "params": jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(x.dtype), like["params"]),
        "batch_stats": jax.tree.map(lambda x: np.ones(x.shape, x.dtype), like["batch_stats"]),
    }
    path = tmp_path_factory.mktemp("weights")
    weights.save(path, weights.Weights(model, variables, "resnet8", {}, ("a", "b", "c"), SEEN, {"file": "x"}))
    return path


def test_counts_every_image_and_writes_what_it_prints(folder, tiny_data, tmp_path, capsys):
    command = [f"--weights={folder}", "--dataset=tiny", f"--data_dir={tiny_data}"]
    assert probe.main([*command, "--batch_size=8", f"--json={tmp_path / 'probe.json'}"]) == 0
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "probe.json").read_text())
    assert list(content["probes"]) == ["kNN", "ridge", "logistic"]
    for method, result in content["probes"].items():
        assert result["images"] == 21
        assert result["top1"] == result["correct"] / 21
        assert f"{result['correct']} of 21" in next(line for line in out.splitlines() if line.startswith(method))
    assert content["probes"]["logistic"]["top1"] > 0.6  # chance is 0.25
    assert content["preprocessing"]["interpolation"] == "bicubic"
    assert content["splits"]["train"]["images"] == 52
    assert "64 features of 16 x 16 pixels" in out


def test_features_do_not_depend_on_the_batch_and_come_in_order(folder, tiny_data):
    mesh = sharding.make_mesh(jax.devices()[:1])
    loaded = infer.load(folder, mesh)
    source = open_source(tiny_data, "tiny", "validation")
    few, labels = probe.features(loaded, source, mesh, 4)
    many, _ = probe.features(loaded, source, mesh, 32)
    assert few.shape == (21, 64)
    np.testing.assert_allclose(few, many, rtol=1e-5, atol=1e-6)
    assert labels.tolist() == [source.read(i).label for i in range(21)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset=tinny"], "Did you mean 'tiny'"),
        (["--dataset=tiny", "--eval_split=test"], "has no split 'test'"),
        (["--dataset=tiny", "--train_split=train[:3]"], "has 3 images; a probe needs 5"),
        (["--dataset=tiny", "--batch_size=0"], "must be at least 1"),
        (["--dataset=tiny", "--json=gone/x.json"], "its folder does not exist"),
        (["--dataset=tiny", "--weights=gone"], "nor a run"),
    ],
)
def test_mistakes(folder, tiny_data, flags, message):
    with pytest.raises(UserError, match=message):
        probe.main([f"--weights={folder}", f"--data_dir={tiny_data}", *flags])


@pytest.mark.slow
def test_published_features_tell_photographs_of_a_plain_folder_apart(lite0_weights, shared_data, tmp_path, capsys):
    """CIFAR-10 at 64 pixels, which the weights are said to expect: 60 images a class to learn, 20 to count."""
    for name, split, count in (("train", "train", 60), ("test", "val", 20)):
        with tarfile.open(shared_data / "cifar10" / f"{name}.tar") as tar:
            for member in tar:
                folder, file = member.name.split("/")
                if int(file[:4]) < count:
                    (tmp_path / "data" / split / folder).mkdir(parents=True, exist_ok=True)
                    (tmp_path / "data" / split / folder / file).write_bytes(tar.extractfile(member).read())
    lite0, out = tmp_path / "lite0", tmp_path / "probe.json"
    convert.main(["--model=efficientnet_lite0", f"--weights={lite0_weights}", "--image_size=64", f"--out={lite0}"])
    assert probe.main([f"--weights={lite0}", f"--dataset={tmp_path / 'data'}", f"--json={out}"]) == 0
    assert "1,280 features of 64 x 64 pixels" in capsys.readouterr().out
    for method, result in json.loads(out.read_text())["probes"].items():
        assert result["images"] == 200
        assert result["top1"] > 0.35, (method, result["top1"])  # chance is 0.1
