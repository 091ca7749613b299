"""Weights in and out: `python -m imagenet_jax.convert`. The work lies in pretrained/."""

import argparse
import importlib.util
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from imagenet_jax import cli, infer, models, runtime, sharding, step
from imagenet_jax.data.labels import classes as imagenet
from imagenet_jax.errors import UserError
from imagenet_jax.pretrained import defaults, names, safetensors, weights

DESCRIPTION = """Turn other people's weights into a folder that predict, evaluate and fine-tune read, and ours into theirs.

  in    --model=resnet50 --weights=resnet50-11ad3fa6.pth --out=DIR
        .safetensors, .pth, .pt, .bin of torchvision, timm or transformers; no torch is needed, and nothing in the file is executed
  out   --workdir=RUN|DIR [--out=X.safetensors --naming=timm] [--stablehlo=FILE] [--onnx=FILE]
        the newest checkpoint of a run (its average, where it keeps one), or a folder of weights

DIR holds weights.safetensors and weights.json: model, classes and preprocessing. Each FILE is a program from uint8 images (any
number, size, size, 3) to probabilities, with weights and normalisation inside: for jax.export.deserialize, on CPU, CUDA and TPU,
and as ONNX for onnxruntime and its like, in float32. Both need the extra [export]."""

PLATFORMS = ("cpu", "cuda", "tpu")


def main(argv: list[str]) -> int:
    """Parse, read one side, write the other."""
    flags = _parser().parse_args(argv)
    if (flags.workdir is None) == (flags.weights is None):
        raise UserError("Give either --weights=FILE with --model=NAME, or --workdir=RUN.")
    if flags.out is None and flags.stablehlo is None and flags.onnx is None:
        raise UserError("Nothing to write: give --out=DIR, --out=X.safetensors, --stablehlo=FILE or --onnx=FILE.")
    runtime.setup()
    found = _read_file(flags) if flags.weights else _read_ours(flags)
    if flags.out and flags.out.suffix == ".safetensors":
        naming = flags.naming or names.namings(found.model)[0]
        _write(flags.out, lambda path: safetensors.write(path, names.to_torch(found.model, found.variables, naming)))
        print(f"Written: {flags.out}, named as {naming} does")
    elif flags.out:
        weights.save(flags.out, found)
        print(f"Written: {flags.out}: {found.name}, {len(found.classes):,} classes")
        print("It will see: " + ", ".join(f"{k} {_shown(v)}" for k, v in found.preprocessing._asdict().items()))
    if flags.stablehlo:
        _write(flags.stablehlo, lambda path: path.write_bytes(stablehlo(found)))
        print(f"Written: {flags.stablehlo}, for {', '.join(PLATFORMS)}")
    if flags.onnx:
        _write(flags.onnx, lambda path: path.write_bytes(onnx(found)))
        print(f"Written: {flags.onnx}")
    return cli.FINISHED


def _shown(value: Any) -> str:
    return f"({', '.join(f'{v:.4g}' for v in value)})" if isinstance(value, tuple) else str(value)


def stablehlo(found: weights.Weights) -> bytes:
    """The model with its weights as a serialized jax.export program: uint8 (b, size, size, 3) -> probabilities (b, classes).

    Raises UserError where flatbuffers is not installed, in which jax writes it.
    """
    _need("flatbuffers", "--stablehlo")
    program = export.export(jax.jit(_predictor(found)), platforms=PLATFORMS)(_images(found))
    return bytes(program.serialize())


def onnx(found: weights.Weights) -> bytes:
    """The same as a serialized ONNX model, in float32. Raises UserError without the package onnx, and as `onnx_graph.convert`."""
    _need("onnx", "--onnx")
    from imagenet_jax.pretrained import onnx_graph

    model = found.model.clone(dtype=jnp.float32, param_dtype=jnp.float32)
    return onnx_graph.convert(_predictor(found._replace(model=model)), _images(found))


def _predictor(found: weights.Weights) -> Callable[[jax.Array], jax.Array]:
    p = found.preprocessing
    predict = step.make_predict_step(found.model, mean=p.mean, std=p.std)
    return lambda images: predict(found.variables, images)


def _images(found: weights.Weights) -> jax.ShapeDtypeStruct:
    """Any number of them."""
    (batch,) = export.symbolic_shape("b")
    side = found.preprocessing.image_size
    return jax.ShapeDtypeStruct((batch, side, side, 3), "uint8")


def _need(package: str, flag: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{flag} needs {package}, which is not installed: pip install 'imagenet_jax[export]'.")


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("convert", DESCRIPTION)
    parser.add_argument("--model", metavar="NAME", help="of `python -m imagenet_jax.models`")
    parser.add_argument("--settings", type=_settings, default={}, metavar="JSON", help="""of the model, as '{"pool": "gap"}'""")
    parser.add_argument("--weights", type=cli.path, metavar="FILE", help="to read")
    parser.add_argument("--entry", default="", help="of a checkpoint with several state dicts, such as state_dict_ema")
    parser.add_argument("--workdir", type=cli.path, metavar="RUN", help="of a run, or a folder of weights, to read")
    parser.add_argument("--out", type=cli.path, help="folder, or X.safetensors, to write")
    parser.add_argument("--naming", help="of X.safetensors; default: the one that the family was built after")
    parser.add_argument("--stablehlo", type=cli.new_file, metavar="FILE", help="program to write, for jax.export")
    parser.add_argument("--onnx", type=cli.new_file, metavar="FILE", help="program to write, for ONNX runtimes")
    seen = parser.add_argument_group("with --weights: what the weights expect; defaults by model and naming, which are printed")
    seen.add_argument("--image_size", type=int)
    seen.add_argument("--crop_ratio", type=float, help="share of the short side that the central crop keeps")
    seen.add_argument("--interpolation", help="bilinear or bicubic, both antialiased")
    seen.add_argument("--mean", type=_three, metavar="R,G,B", help="of images in 0..1")
    seen.add_argument("--std", type=_three, metavar="R,G,B")
    seen.add_argument("--classes", type=cli.path, metavar="FILE", help="a name a line; default: ImageNet's 1000")
    seen.add_argument("--published_top1", type=float, metavar="PERCENT")
    return parser


def _three(text: str) -> tuple[float, ...]:
    try:
        r, g, b = (float(n) for n in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers with commas") from None
    return r, g, b


def _settings(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return found


def _read_file(flags: argparse.Namespace) -> weights.Weights:
    if flags.model is None:
        raise UserError("--weights needs --model=NAME: the file does not say what it is of.")
    class_names = _class_names(flags.classes)
    model = models.create(flags.model, num_classes=len(class_names), **flags.settings)
    variables, naming = names.from_torch(model, weights.read_tensors(flags.weights, flags.entry))
    needed = defaults.settings(model, naming)
    if any(getattr(model, key) != value for key, value in needed.items()):
        raise UserError(
            f"Weights that {naming} names are of another function. Give --settings='{json.dumps(flags.settings | needed)}'."
        )
    given = {key: getattr(flags, key) for key in weights.Preprocessing._fields if getattr(flags, key, None) is not None}
    return weights.Weights(
        model=model,
        variables=variables,
        name=flags.model,
        settings=flags.settings,
        classes=class_names,
        preprocessing=weights.check(defaults.preprocessing(flags.model, model, naming)._replace(**given)),
        source={"file": flags.weights.name, "sha256": weights.sha256(flags.weights), "naming": naming},
        published_top1=flags.published_top1,
    )


def _read_ours(flags: argparse.Namespace) -> weights.Weights:
    loaded = infer.load(flags.workdir, sharding.make_mesh(jax.devices()[:1]))
    chosen: dict[str, Any] = loaded.record["config"]["model"]
    pixels = loaded.pixels
    return weights.Weights(
        model=loaded.model,
        variables=loaded.weights[loaded.best],
        name=chosen["name"],
        settings=chosen["settings"],
        classes=loaded.classes,
        preprocessing=weights.Preprocessing(
            pixels.image_size, pixels.crop_ratio, pixels.engine.interpolation, loaded.mean, loaded.std, pixels.antialias
        ),
        source=loaded.record.get("source") or {"run": flags.workdir.name, "step": loaded.step, "weights": loaded.best},
    )


def _class_names(path: pathlib.Path | None) -> tuple[str, ...]:
    if path is None:
        return tuple(imagenet.readable(imagenet.wnids()))
    try:
        found = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise UserError(f"--classes={path} cannot be read: {error}.") from None
    if not found or len(set(found)) < len(found):
        raise UserError(f"--classes={path} must have a name a line, none of them twice.")
    return tuple(imagenet.readable(found))


def _write(path: pathlib.Path, write: Any) -> None:
    try:
        write(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None


if __name__ == "__main__":
    cli.run(main)
