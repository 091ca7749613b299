"""What each family's tensors are called in each naming, where that is not what `names.py` makes of our paths.

A naming is a list of rows, or a function of the model that gives one. Rows are applied one after the other to the name
that our path has with dots, such as `layer1.0.downsample_conv.weight`: a regular expression, what to put in its place, and the
shape there where it is another. `{a,b}` in a replacement stands for tensors that are one of ours when joined.

Facts from torchvision 0.2x (torchvision/models), timm 1.0 (timm/models) and transformers 4 and 5 (the files that save_pretrained
writes). Families not listed have torchvision's way of naming, and nobody's weights.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from imagenet_jax.models import convnext, densenet, efficientnet, mixer, mobilenet, nfnet, regnet, resnet, vgg, vit


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


def _efficientnet_hf(model: Any) -> Iterator[Row]:
    """The PyTorch ports' blocks, each part in a module of its own. V2's fused blocks are not among them."""
    parts = {
        "_expand_conv": "expansion.expand_conv",
        "_depthwise_conv": "depthwise_conv.depthwise_conv",
        "_se_reduce": "squeeze_excite.reduce",
        "_se_expand": "squeeze_excite.expand",
        "_project_conv": "projection.project_conv",
        "_bn0": "expansion.expand_bn",
        "_bn1": "depthwise_conv.depthwise_norm",
        "_bn2": "projection.project_bn",
    }
    yield from _efficientnet_pytorch(model)
    yield Row(r"^_blocks\.(\d+)\.(\w+)\.", lambda m: f"efficientnet.encoder.blocks.{m[1]}.{parts[m[2]]}.")
    yield Row(r"^_conv_stem\.", "efficientnet.embeddings.convolution.")
    yield Row(r"^_bn0\.", "efficientnet.embeddings.batchnorm.")
    yield Row(r"^_conv_head\.", "efficientnet.encoder.top_conv.")
    yield Row(r"^_bn1\.", "efficientnet.encoder.top_bn.")
    yield Row(r"^_fc\.", "classifier.")


_V2_REPEATS = (1, 2, 3, 4, 3, 3, 1)  # of MobileNetV2's stages, which torchvision counts through


def _mobilenet_v2(model: Any, block: Callable[[int, int, int], str], parts: tuple[list[str], list[str]]) -> Iterator[Row]:
    """Names of the blocks of V2: `block` makes one of (its number, stage, place in the stage), `parts` those of its units.

    Only the first block does not widen: it has two units, not three.
    """
    number = 0
    for stage, repeats in enumerate(_V2_REPEATS):
        for place in range(repeats):
            pairs = parts[0] if number == 0 else parts[1]
            where = rf"^features\.{number + 1}\.conv\."
            ours = [f"{unit}.{i}" for unit in range(len(pairs) // 2 - 1) for i in (0, 1)]
            ours += [str(len(pairs) // 2 - 1), str(len(pairs) // 2)]
            for inner, name in zip(ours, pairs, strict=True):
                yield Row(where + re.escape(inner) + r"\.", f"{block(number, stage, place)}{name}.")
            number += 1


def _mobilenet_timm(model: Any) -> Iterator[Row]:
    """Of V2: timm's V3 has another kernel where torchvision's has a dense layer."""
    first = ["conv_dw", "bn1", "conv_pw", "bn2"]
    others = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
    yield from _mobilenet_v2(model, lambda number, stage, place: f"blocks.{stage}.{place}.", (first, others))
    for ours, name in ((r"0\.0", "conv_stem"), (r"0\.1", "bn1"), (r"18\.0", "conv_head"), (r"18\.1", "bn2")):
        yield Row(rf"^features\.{ours}\.", f"{name}.")
    yield Row(r"^classifier\.1\.", "classifier.")


def _mobilenet_hf(model: Any) -> Iterator[Row]:
    """Of V2, whose first block belongs to the stem there."""
    first = [f"{unit}.{part}" for unit in ("conv_3x3", "reduce_1x1") for part in ("convolution", "normalization")]
    others = ["expand_1x1.convolution", "expand_1x1.normalization", *first]
    top = "mobilenet_v2."
    yield from _mobilenet_v2(
        model, lambda number, stage, place: f"{top}layer.{number - 1}." if number else f"{top}conv_stem.", (first, others)
    )
    for ours, name in ((0, "conv_stem.first_conv"), (18, "conv_1x1")):
        yield Row(rf"^features\.{ours}\.0\.", f"{top}{name}.convolution.")
        yield Row(rf"^features\.{ours}\.1\.", f"{top}{name}.normalization.")
    yield Row(r"^classifier\.1\.", "classifier.")


_REGNET_TIMM = [
    Row(r"^stem\.0\.", "stem.conv."),
    Row(r"^stem\.1\.", "stem.bn."),
    Row(r"^trunk_output\.block(\d)\.block\d-(\d+)\.", lambda m: f"s{m[1]}.b{int(m[2]) + 1}."),
    Row(r"\.proj\.0\.", ".downsample.conv."),
    Row(r"\.proj\.1\.", ".downsample.bn."),
    Row(r"\.f\.([abc])\.0\.", lambda m: f".conv{'abc'.index(m[1]) + 1}.conv."),
    Row(r"\.f\.([abc])\.1\.", lambda m: f".conv{'abc'.index(m[1]) + 1}.bn."),
    Row(r"\.f\.se\.", ".se."),
    Row(r"^fc\.", "head.fc."),
]

_REGNET_HF = [
    Row(r"^stem\.0\.", "regnet.embedder.embedder.convolution."),
    Row(r"^stem\.1\.", "regnet.embedder.embedder.normalization."),
    Row(
        r"^trunk_output\.block(\d)\.block\d-(\d+)\.",
        lambda m: f"regnet.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.",
    ),
    Row(r"\.proj\.0\.", ".shortcut.convolution."),
    Row(r"\.proj\.1\.", ".shortcut.normalization."),
    Row(r"\.f\.([abc])\.0\.", lambda m: f".layer.{'ab.c'.index(m[1])}.convolution."),
    Row(r"\.f\.([abc])\.1\.", lambda m: f".layer.{'ab.c'.index(m[1])}.normalization."),
    Row(r"\.f\.se\.fc1\.", ".layer.2.attention.0."),
    Row(r"\.f\.se\.fc2\.", ".layer.2.attention.2."),
    Row(r"^fc\.", "classifier.1."),
]


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


def _convnext_timm_conv(model: Any) -> Iterator[Row]:
    """timm's small V2 models have 1x1 convolutions where the others have dense layers."""
    for stage, width in enumerate(model.widths):
        for i, inputs in ((1, width), (2, 4 * width)):
            yield Row(rf"^(stages\.{stage}\..*\.mlp\.fc{i}\.weight)$", r"\1", (-1, inputs, 1, 1))


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
    vgg.VGG: {"torchvision": ()},
    densenet.DenseNet: {"torchvision": (), "timm": ()},
    efficientnet.EfficientNet: {
        "torchvision": (),
        "timm": _efficientnet_timm,
        "efficientnet_pytorch": _efficientnet_pytorch,
        "transformers": _efficientnet_hf,
    },
    mobilenet.MobileNet: {"torchvision": (), "timm": _mobilenet_timm, "transformers": _mobilenet_hf},
    regnet.RegNet: {"torchvision": (), "timm": _REGNET_TIMM, "transformers": _REGNET_HF},
    convnext.ConvNeXt: {
        "timm": (),
        "timm_conv": _convnext_timm_conv,
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

# Who has no such model: a naming there would be ours alone.
ABSENT: dict[tuple[type, str], Callable[[Any], bool]] = {
    (resnet.ResNet, "torchvision"): lambda model: model.variant_d,
    (resnet.ResNet, "transformers"): lambda model: model.variant_d or model.groups > 1 or model.group_width != 64,
    (efficientnet.EfficientNet, "torchvision"): lambda model: not model.se,
    (efficientnet.EfficientNet, "efficientnet_pytorch"): lambda model: any(stage.fused for stage in model.stages),
    (efficientnet.EfficientNet, "transformers"): lambda model: not model.se or any(stage.fused for stage in model.stages),
    (mobilenet.MobileNet, "timm"): lambda model: model.hidden > 0,  # V3
    (mobilenet.MobileNet, "transformers"): lambda model: model.hidden > 0,
    (convnext.ConvNeXt, "timm_conv"): lambda model: not model.grn,
    (convnext.ConvNeXt, "torchvision"): lambda model: model.grn,
    (vit.ViT, "torchvision"): lambda model: model.distilled or model.width < 768,
    (vit.ViT, "torchvision_0.11"): lambda model: model.distilled or model.width < 768,
}
