"""What each family's tensors are called in each naming, where that is not what `names.py` makes of our paths.

A naming is a list of rows, or a function of the model that gives one. Rows are applied one after the other to the name
that our path has with dots, such as `layer1.0.downsample_conv.weight`: a regular expression, what to put in its place, and the
shape there where it is another. `{a,b}` in a replacement stands for tensors that are one of ours when joined.

Facts from torchvision 0.2x (torchvision/models), timm 1.0 (timm/models) and transformers 4 and 5 (the files that save_pretrained
writes). Families not listed have torchvision's names and no others.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from imagenet_jax.models import convnext, efficientnet, mixer, nfnet, resnet, vit


class Row(NamedTuple):
    pattern: str
    replacement: str | Callable[[Any], str]
    shape: tuple[int, ...] | None = None


def _resnet(model: Any) -> Iterator[Row]:
    """timm's variant D pools before it projects, which takes a number."""
    first = int(model.variant_d)
    yield Row("downsample_conv", f"downsample.{first}")
    yield Row("downsample_bn", f"downsample.{first + 1}")


_RESNET_HF = [
    Row(r"^conv1\.", "resnet.embedder.embedder.convolution."),
    Row(r"^bn1\.", "resnet.embedder.embedder.normalization."),
    Row(r"^layer(\d)\.(\d+)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}."),
    Row(r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution."),
    Row(r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization."),
    Row(r"downsample_conv", "shortcut.convolution"),
    Row(r"downsample_bn", "shortcut.normalization"),
    Row(r"^fc\.", "classifier.1."),
]


def _efficientnet_timm(model: Any) -> Iterator[Row]:
    """timm has stages of blocks whose layers are named after what they do: conv_pw, conv_dw, conv_pwl."""
    last = len(model.stages) + 1
    for ours, name in ((r"0\.0", "conv_stem"), (r"0\.1", "bn1"), (rf"{last}\.0", "conv_head"), (rf"{last}\.1", "bn2")):
        yield Row(rf"^features\.{ours}\.", f"{name}.")
    yield Row(r"^classifier\.1\.", "classifier.")
    for number, stage in enumerate(model.stages, start=1):
        if stage.fused:
            convolutions = ["conv"] if stage.expand == 1 else ["conv_exp", "conv_pwl"]
        else:
            convolutions = ["conv_dw", "conv_pw"] if stage.expand == 1 else ["conv_pw", "conv_dw", "conv_pwl"]
        units = list(convolutions)
        if model.se and not stage.fused:
            units.insert(-1, "se")
        for i, unit in enumerate(units):
            block = rf"^features\.{number}\.(\d+)\.block\.{i}\."
            where = rf"blocks.{number - 1}.\1."
            if unit == "se":
                yield Row(block + "fc1", where + "se.conv_reduce")
                yield Row(block + "fc2", where + "se.conv_expand")
            else:
                yield Row(block + r"0\.", where + unit + ".")
                yield Row(block + r"1\.", where + f"bn{convolutions.index(unit) + 1}.")


def _efficientnet_pytorch(model: Any) -> Iterator[Row]:
    """The PyTorch ports of Google's code (efficientnet_pytorch, efficientnet_lite_pytorch): blocks counted through."""
    last = len(model.stages) + 1
    for ours, name in ((r"0\.0", "_conv_stem"), (r"0\.1", "_bn0"), (rf"{last}\.0", "_conv_head"), (rf"{last}\.1", "_bn1")):
        yield Row(rf"^features\.{ours}\.", f"{name}.")
    yield Row(r"^classifier\.1\.", "_fc.")
    block = 0
    for number, stage in enumerate(model.stages, start=1):
        expand = [("_expand_conv", "_bn0")] if stage.expand != 1 else []
        units = [
            *expand,
            ("_depthwise_conv", "_bn1"),
            *([("_se_reduce", "_se_expand")] if model.se else []),
            ("_project_conv", "_bn2"),
        ]
        for i in range(stage.repeats):
            for j, pair in enumerate(units):
                inner = ("fc1", "fc2") if pair[0] == "_se_reduce" else ("0", "1")
                for ours, name in zip(inner, pair, strict=True):
                    yield Row(rf"^features\.{number}\.{i}\.block\.{j}\.{ours}\.", f"_blocks.{block}.{name}.")
            block += 1


def _vit_torchvision(mlp: tuple[str, str]) -> list[Row]:
    return [
        Row(r"^cls_token$", "class_token"),
        Row(r"^pos_embed$", "encoder.pos_embedding"),
        Row(r"^patch_embed\.proj\.", "conv_proj."),
        Row(r"^norm\.", "encoder.ln."),
        Row(r"^head\.", "heads.head."),
        Row(r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
        Row(r"\.norm(\d)\.", r".ln_\1."),
        Row(r"\.attn\.qkv\.", ".self_attention.in_proj_"),
        Row(r"\.attn\.proj\.", ".self_attention.out_proj."),
        Row(r"\.mlp\.fc1\.", f".mlp.{mlp[0]}."),
        Row(r"\.mlp\.fc2\.", f".mlp.{mlp[1]}."),
    ]


def _vit_hf(model: Any) -> Iterator[Row]:
    """Distilled, it is a DeiT with a classifier for each token. DeiT without the second token has ViT's names there too."""
    top = "deit" if model.distilled else "vit"
    yield Row(r"^cls_token$", f"{top}.embeddings.cls_token")
    yield Row(r"^dist_token$", f"{top}.embeddings.distillation_token")
    yield Row(r"^pos_embed$", f"{top}.embeddings.position_embeddings")
    yield Row(r"^patch_embed\.proj\.", f"{top}.embeddings.patch_embeddings.projection.")
    yield Row(r"^norm\.", f"{top}.layernorm.")
    yield Row(r"^head\.", "cls_classifier." if model.distilled else "classifier.")
    yield Row(r"^head_dist\.", "distillation_classifier.")
    yield Row(r"^blocks\.(\d+)\.", rf"{top}.encoder.layer.\1.")
    yield Row(r"\.norm1\.", ".layernorm_before.")
    yield Row(r"\.norm2\.", ".layernorm_after.")
    yield Row(r"\.attn\.qkv\.", ".attention.attention.{query,key,value}.")
    yield Row(r"\.attn\.proj\.", ".attention.output.dense.")
    yield Row(r"\.mlp\.fc1\.", ".intermediate.dense.")
    yield Row(r"\.mlp\.fc2\.", ".output.dense.")


_CONVNEXT_TORCHVISION = [
    Row(r"^stem\.(\d)\.", r"features.0.\1."),
    Row(r"^stages\.(\d)\.downsample\.", lambda m: f"features.{2 * int(m[1])}."),
    Row(r"^stages\.(\d)\.blocks\.(\d+)\.", lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}."),
    Row(r"\.gamma$", ".layer_scale", (-1, 1, 1)),
    Row(r"\.conv_dw\.", ".block.0."),
    Row(r"^(features.*)\.norm\.", r"\1.block.2."),
    Row(r"\.mlp\.fc1\.", ".block.3."),
    Row(r"\.mlp\.fc2\.", ".block.5."),
    Row(r"^head\.norm\.", "classifier.0."),
    Row(r"^head\.fc\.", "classifier.2."),
]


def _convnext_hf(model: Any) -> Iterator[Row]:
    top = "convnextv2" if model.grn else "convnext"
    yield Row(r"^stem\.0\.", f"{top}.embeddings.patch_embeddings.")
    yield Row(r"^stem\.1\.", f"{top}.embeddings.layernorm.")
    yield Row(r"^stages\.(\d)\.downsample\.", rf"{top}.encoder.stages.\1.downsampling_layer.")
    yield Row(r"^stages\.(\d)\.blocks\.", rf"{top}.encoder.stages.\1.layers.")
    yield Row(r"\.gamma$", ".layer_scale_parameter")
    yield Row(r"\.conv_dw\.", ".dwconv.")
    yield Row(r"^(convnext.*)\.norm\.", r"\1.layernorm.")
    yield Row(r"\.mlp\.fc(\d)\.", r".pwconv\1.")
    yield Row(r"\.mlp\.grn\.", ".grn.", (1, 1, 1, -1))
    yield Row(r"^head\.norm\.", f"{top}.layernorm.")
    yield Row(r"^head\.fc\.", "classifier.")


_CONVNEXT_AUTHORS = [
    Row(r"^stem\.", "downsample_layers.0."),
    Row(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    Row(r"^stages\.(\d)\.blocks\.", r"stages.\1."),
    Row(r"\.conv_dw\.", ".dwconv."),
    Row(r"\.mlp\.fc(\d)\.", r".pwconv\1."),
    Row(r"\.mlp\.grn\.weight$", ".grn.gamma", (1, 1, 1, -1)),
    Row(r"\.mlp\.grn\.bias$", ".grn.beta", (1, 1, 1, -1)),
    Row(r"^head\.norm\.", "norm."),
    Row(r"^head\.fc\.", "head."),
]

# The first naming of a family is the one that it was built after.
NAMINGS: dict[type, dict[str, Iterable[Row] | Callable[[Any], Iterable[Row]]]] = {
    resnet.ResNet: {"torchvision": _resnet, "timm": _resnet, "transformers": _RESNET_HF},
    efficientnet.EfficientNet: {"torchvision": (), "timm": _efficientnet_timm, "efficientnet_pytorch": _efficientnet_pytorch},
    convnext.ConvNeXt: {
        "timm": (),
        "torchvision": _CONVNEXT_TORCHVISION,
        "transformers": _convnext_hf,
        "facebookresearch": _CONVNEXT_AUTHORS,
    },
    mixer.Mixer: {"timm": ()},
    nfnet.NFNet: {"timm": ()},
    vit.ViT: {
        "timm": (),
        "torchvision": _vit_torchvision(("0", "3")),
        "torchvision_0.11": _vit_torchvision(("linear_1", "linear_2")),
        "transformers": _vit_hf,
    },
}
