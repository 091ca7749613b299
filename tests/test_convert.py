"""The convert command: files of torch in, folders and files of ours out, nothing assumed and nothing lost."""

import json

import jax
import numpy as np
import pytest
from jax import export

from imagenet_jax import convert, infer, models, predict, sharding, step, train, tree
from imagenet_jax.errors import UserError
from imagenet_jax.pretrained import defaults, names, safetensors, weights


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(jax.devices()[:1])


@pytest.fixture
def source(tmp_path):
    """A `.safetensors` file with torchvision's names of a small ResNet of five classes, its variables, and the class file."""
    model = models.create("resnet8", num_classes=5)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.abs(rng.standard_normal(x.shape)).astype(x.dtype), names.variables_like(model))
    safetensors.write(tmp_path / "in.safetensors", names.to_torch(model, variables, "torchvision"))
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    return tmp_path / "in.safetensors", variables, f"--classes={tmp_path / 'classes.txt'}"


def test_in_and_out_again_are_the_same_bytes(source, tmp_path, mesh, capsys):
    path, variables, class_flag = source
    flags = ["--crop_ratio=0.9", "--mean=0.1,0.2,0.3", "--interpolation=bicubic", "--published_top1=12.5"]
    assert convert.main(["--model=resnet8", f"--weights={path}", f"--out={tmp_path / 'w'}", class_flag, *flags]) == 0
    assert "crop_ratio 0.9, interpolation bicubic, mean (0.1, 0.2, 0.3)" in capsys.readouterr().out
    loaded = infer.load(tmp_path / "w", mesh)
    for (name, a), b in zip(tree.paths(loaded.weights["raw"]), jax.tree.leaves(variables), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert loaded.classes == tuple("abcde")
    assert (loaded.mean, loaded.pixels.crop_ratio, loaded.pixels.image_size) == ((0.1, 0.2, 0.3), 0.9, 32)
    assert loaded.pixels.engine.interpolation == "bicubic"
    assert json.loads((tmp_path / "w" / "weights.json").read_text())["source"] == {
        "file": "in.safetensors",
        "sha256": weights.sha256(path),
        "naming": "torchvision",
    }
    assert weights.load(tmp_path / "w").published_top1 == 12.5
    assert convert.main([f"--workdir={tmp_path / 'w'}", f"--out={tmp_path / 'out.safetensors'}"]) == 0
    assert (tmp_path / "out.safetensors").read_bytes() == path.read_bytes()


def test_a_run_goes_out_with_its_average_and_its_preprocessing(tiny_data, tiny_config, tmp_path, mesh):
    tiny_config.epochs, tiny_config.warmup_epochs, tiny_config.eval_interval_epochs = 1.0, 0.0, 0.0
    assert train.train(tiny_config, tmp_path / "run", data_dir=tiny_data, devices=jax.devices()[:1]) == 0
    assert convert.main([f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'w'}"]) == 0
    run, again = infer.load(tmp_path / "run", mesh), infer.load(tmp_path / "w", mesh)
    assert run.best == "ema"
    for a, b in zip(jax.tree.leaves(run.weights["ema"]), jax.tree.leaves(again.weights["raw"]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (run.classes, run.mean, run.std) == (again.classes, again.mean, again.std)
    assert run.pixels[1:] == again.pixels[1:]
    assert again.record["source"] == {"run": "run", "step": run.step, "weights": "ema"}


def test_the_program_takes_any_batch_and_runs_without_our_code(source, tmp_path):
    path, variables, class_flag = source
    out = tmp_path / "program"
    assert convert.main(["--model=resnet8", f"--weights={path}", f"--stablehlo={out}", class_flag]) == 0
    program = export.deserialize(bytearray(out.read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    model = models.create("resnet8", num_classes=5)
    run = jax.jit(step.make_predict_step(model, mean=defaults.IMAGENET["mean"], std=defaults.IMAGENET["std"]))
    for n in (1, 3):
        images = np.random.default_rng(n).integers(0, 256, (n, 32, 32, 3), np.uint8)
        np.testing.assert_allclose(program.call(images), run(variables, images), atol=1e-6)


def test_an_onnx_file_gives_the_same_probabilities(source, tmp_path, onnxruntime):
    path, variables, class_flag = source
    out = tmp_path / "x.onnx"
    assert convert.main(["--model=resnet8", f"--weights={path}", f"--onnx={out}", class_flag]) == 0
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    model = models.create("resnet8", num_classes=5)
    run = jax.jit(step.make_predict_step(model, mean=defaults.IMAGENET["mean"], std=defaults.IMAGENET["std"]))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(session.run(None, {"images": images})[0], run(variables, images), atol=1e-5)


def test_what_a_program_needs_is_named(source, tmp_path, monkeypatch):
    path, _, class_flag = source
    monkeypatch.setattr(convert.importlib.util, "find_spec", lambda name: None)
    for flag, package in (("--stablehlo", "flatbuffers"), ("--onnx", "onnx")):
        with pytest.raises(UserError, match=rf"{flag} needs {package}, .* pip install 'imagenet_jax\[export\]'"):
            convert.main(["--model=resnet8", f"--weights={path}", f"{flag}={tmp_path / 'x'}", class_flag])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Give either --weights"),
        (["--weights=in.safetensors"], "Nothing to write"),
        (["--weights=in.safetensors", "--out=w"], "needs --model=NAME"),
        (["--model=resnet9", "--weights=in.safetensors", "--out=w"], "Did you mean"),
        (["--model=resnet8", "--weights=gone", "--out=w"], "--weights=gone cannot be read: No such file"),
        (["--model=resnet8", "--weights=classes.txt", "--out=w"], "classes.txt: "),
        (["--model=resnet8", "--weights=in.safetensors", "--out=w"], r"shape      fc\.bias is \(5,\), wanted \(1000,\)"),
        (["--model=resnet8", "--weights=in.safetensors", "--out=w", "--classes=gone"], "--classes=gone cannot be read"),
        (["--model=resnet8", "--weights=in.safetensors", "--out=w", "--classes=classes.txt", "--crop_ratio=2"], "not in"),
        (["--model=resnet8", "--weights=in.safetensors", "--out=w", "--classes=classes.txt", "--interpolation=area"], "No interp"),
        (["--model=resnet8", "--weights=in.safetensors", "--out=w", "--classes=classes.txt", "--std=0,1,1"], "above 0"),
        (["--workdir=.", "--out=w"], "nor a run"),
    ],
)
def test_mistakes(source, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        convert.main(flags)
    assert not (tmp_path / "w").exists()


def test_folders_that_lie_are_refused(source, tmp_path, mesh):
    path, _, class_flag = source
    convert.main(["--model=resnet8", f"--weights={path}", f"--out={tmp_path / 'w'}", class_flag])
    file = tmp_path / "w" / "weights.json"
    good = json.loads(file.read_text())
    changes = [
        ({"format": 2}, "not of format 1"),
        ({"classes": []}, "not of format 1"),
        ({"classes": [1, 2]}, "not of format 1"),
        ({"classes": ["a"]}, "2 tensors differ"),
        ({"model": {"name": "resnet9", "settings": {}}}, "No model 'resnet9'"),
        ({"model": {"name": "resnet8", "settings": {"parent": 1}}}, "No setting"),
        ({"model": {"name": "resnet20", "settings": {}}}, "tensors differ"),
        ({"preprocessing": good["preprocessing"] | {"mean": "abc"}}, "preprocessing"),
        ({"preprocessing": good["preprocessing"] | {"image_size": 10**9}}, "image_size"),
        ({"preprocessing": {}}, "preprocessing"),
    ]
    for change, message in changes:
        file.write_text(json.dumps(good | change))
        with pytest.raises(UserError, match=message):
            infer.load(tmp_path / "w", mesh)
    file.write_text("[" * 100_000)
    with pytest.raises(UserError, match="not valid JSON"):
        infer.load(tmp_path / "w", mesh)


def test_transformers_mobilenet_is_another_function(tmp_path):
    """It pads as TensorFlow does: read as torchvision's, its weights would lose points without a word."""
    model = models.create("mobilenet_v2", num_classes=1000)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), names.variables_like(model))
    safetensors.write(tmp_path / "x.safetensors", names.to_torch(model, variables, "transformers"))
    flags = ["--model=mobilenet_v2", f"--weights={tmp_path / 'x.safetensors'}", f"--out={tmp_path / 'w'}"]
    with pytest.raises(UserError, match=r"""another function. Give --settings='{"same_padding": true, "bn_epsilon": 0.001}'"""):
        convert.main(flags)
    assert convert.main([*flags, '--settings={"same_padding": true, "bn_epsilon": 0.001}']) == 0
    assert weights.load(tmp_path / "w").model.same_padding


def test_defaults_are_those_of_the_sources():
    def of(name, naming):
        return defaults.preprocessing(name, models.create(name, num_classes=7), naming)

    assert of("resnet50", "torchvision") == weights.Preprocessing(224, 0.875, "bilinear", **defaults.IMAGENET)
    assert of("efficientnet_b4", "torchvision") == weights.Preprocessing(380, 380 / 384, "bicubic", **defaults.IMAGENET)
    assert of("efficientnet_lite0", "efficientnet_pytorch") == weights.Preprocessing(224, 0.875, "bicubic", **defaults.LITE)
    assert of("vit_b_16", "timm") == weights.Preprocessing(224, 0.9, "bicubic", **defaults.HALF)
    assert of("deit_s_16", "timm") == weights.Preprocessing(224, 0.9, "bicubic", **defaults.IMAGENET)


@pytest.mark.slow
def test_published_weights_give_every_block_of_the_reference(lite0, shared_data, mesh):
    reference = np.load(shared_data / "efficientnet_lite0" / "block_outputs.npz")
    loaded = infer.load_weights(lite0, mesh)

    def run(variables, images):
        return loaded.model.apply(
            variables, images, capture_intermediates=lambda module, _: module.path != (), mutable=["intermediates"]
        )

    with jax.default_matmul_precision("highest"):
        logits, captured = jax.jit(run)(loaded.weights["raw"], reference["inputs_nhwc"])
    maps = captured["intermediates"]
    blocks = [
        f"features_{s}_{i}"
        for s in range(1, 8)
        for i in range(9)
        if f"features_{s}_{i}" in maps and "__call__" in maps[f"features_{s}_{i}"]
    ]
    blocks = [b for b in blocks if maps[b]["__call__"][0].ndim == 4]
    assert len(blocks) == 16
    for i, block in enumerate(blocks):
        np.testing.assert_allclose(maps[block]["__call__"][0].mean((1, 2)), reference[f"block{i}"], atol=1e-4, err_msg=block)
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-4)


@pytest.mark.slow
def test_published_weights_as_onnx_give_the_same_logits(lite0, shared_data, onnxruntime):
    """Probabilities of onnxruntime, whose logarithms are the logits less a number for each image."""
    found = weights.load(lite0)
    images = np.load(shared_data / "efficientnet_lite0" / "block_outputs.npz")["inputs_nhwc"]
    images = np.clip(np.rint(images * 128 + 127), 0, 255).astype(np.uint8)
    got = np.log(onnxruntime.InferenceSession(convert.onnx(found)).run(None, {"images": images})[0])
    with jax.default_matmul_precision("highest"):
        predict_step = step.make_predict_step(found.model, mean=found.preprocessing.mean, std=found.preprocessing.std)
        wanted = np.log(jax.jit(predict_step)(found.variables, images))
    np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.slow
def test_published_weights_decide_on_photographs_as_the_reference_does(lite0, photographs, shared_data, tmp_path, mesh):
    """One image of each of 545 classes, through our own decoding and resizing."""
    reference = np.load(shared_data / "efficientnet_lite0" / "reference_logits.npz")
    paths = [tmp_path / f"{wnid}.jpg" for wnid in reference["wnid"]]
    for path in paths:
        path.write_bytes(photographs[path.stem])
    loaded = infer.load_weights(lite0, mesh)
    got = np.concatenate([p for _, p in predict.predict(loaded, paths, mesh, 32)])
    decided, wanted = got.argmax(1), reference["logits"].argmax(1)
    assert (decided == wanted).mean() >= 0.995
    assert (decided == reference["label"]).mean() == pytest.approx(0.881, abs=0.004)
