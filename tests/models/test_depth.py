"""The layers that a layer-wise learning rate counts: the papers' for transformers, blocks for convolutional networks."""

import itertools

import pytest

from imagenet_jax import models, tree
from imagenet_jax.pretrained import names


def of(name, **settings):
    return models.depths(models.create(name, num_classes=7, **settings))


def test_a_vision_transformer_counts_as_beit_does():
    """As in BEiT's code: 0 what comes before the blocks, i + 1 block i, the last for what comes after."""
    depth = of("vit_ti_16")
    assert {depth[p] for p in ("patch_embed/proj/kernel", "cls_token", "pos_embed")} == {0}
    for i in range(12):
        assert {d for p, d in depth.items() if p.startswith(f"blocks_{i}/")} == {i + 1}
    assert {depth[p] for p in ("norm/scale", "head/kernel", "head/bias")} == {13}


@pytest.mark.parametrize(
    ("name", "count", "same", "above"),
    [
        ("resnet50", 18, "conv1/kernel bn1/scale", "layer1_0/conv1/kernel layer1_1/conv1/kernel layer4_2/bn3/bias fc/bias"),
        ("vgg11_bn", 11, "features_0/kernel features_1/bias", "features_4/kernel classifier_0/kernel classifier_6/bias"),
        ("densenet121", 63, "features/transition1/norm/scale features/transition1/conv/kernel", "features/norm5/bias"),
        ("regnet_y_400mf", 18, "trunk_output/block2/block2-0/proj_0/kernel trunk_output/block2/block2-0/f/a_0/kernel", "fc/kernel"),
        (
            "efficientnet_lite0",
            19,
            "features_3_1/block_0_0/kernel features_3_1/block_2_1/bias",
            "features_8_0/kernel classifier_1/bias",
        ),
        ("convnext_tiny", 23, "stages_1/downsample_0/scale stages_1/downsample_1/kernel", "stages_1/blocks_0/gamma head/fc/kernel"),
        ("deit_ti_16_distilled", 14, "head/kernel head_dist/kernel", ""),
    ],
)
def test_blocks_are_layers_and_a_convolution_goes_with_its_norm(name, count, same, above):
    depth = of(name)
    assert sorted(set(depth.values())) == list(range(count))
    assert len({depth[path] for path in same.split()}) == 1
    climb = [depth[path] for path in [same.split()[0], *above.split()]]
    assert all(a < b for a, b in itertools.pairwise(climb))
    assert all(b >= a for a, b in itertools.pairwise(depth.values()))


def test_every_parameter_has_a_depth():
    model = models.create("mobilenet_v3_small", num_classes=7)
    assert set(models.depths(model)) == {path for path, _ in tree.paths(names.variables_like(model)["params"])}
