"""The account of a compiled step, and refusals. Compiling for a TPU takes libtpu and minutes: docs/aot.md holds what came of it."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

from imagenet_jax import aot, config, hlo, sharding
from imagenet_jax.errors import UserError


def test_the_account_of_a_matrix_product_and_its_sum():
    """(1024, 512) rows over 8 devices times (512, 256), summed over all rows."""
    mesh = sharding.make_mesh(jax.devices()[:8])
    step = jax.jit(
        lambda x, w: jnp.sum(x @ w, 0),
        in_shardings=(sharding.batched(mesh), sharding.replicated(mesh)), out_shardings=sharding.replicated(mesh),
    )  # fmt: skip
    compiled = step.lower(jnp.zeros((1024, 512)), jnp.zeros((512, 256))).compile()
    text = aot.account(compiled, aot.Chip(memory=1e-3, tflops=1e-3, memory_bandwidth=1.0, interconnect=1e-3))
    assert "arguments 1 MiB" in text  # 128 x 512 and 512 x 256 of 4 bytes: 0.75 MiB
    assert "fits 0.001 GB" in text
    assert "all-reduce     1, 0.0 MiB" in text
    assert "communicating 4.10 ms" in text  # twice 1 kB at half of 1 MB/s
    flops = compiled.cost_analysis()["flops"]
    assert 2 * 128 * 512 * 256 <= flops < 1.01 * 2 * 128 * 512 * 256 + 128 * 256 * 2
    assert f"computing {flops / 1e9 * 1e3:.2f} ms" in text


def test_an_unknown_chip_is_named(capsys):
    with pytest.raises(UserError, match=r"No chip 'v5'\. Did you mean 'v5p' or 'v5e'"):
        aot.main(["--config=resnet50", "--topology=v5:2x4"])


@pytest.mark.slow
def test_on_tpus_nothing_wide_is_float32_and_all_is_summed_in_two_operations(libtpu):
    """A ResNet-50 of four blocks, one of each width, 128 images a chip: the smallest map has 128 x 7 x 7 x 512 numbers.

    One all-reduce sums the gradients of kernels in bfloat16, and one the rest in float32.
    """
    overrides = ["batch_size=1024", "bn_group=128", "model.settings.depths=(1, 1, 1, 1)", "model.settings.fold_bn=True"]
    chosen = config.load("resnet50", [f"--config.{text}" for text in overrides])
    compiled, _ = aot.compile_step(chosen, "v5e:2x4", num_classes=1000)
    text = compiled.as_text()
    assert [c.kind for c in hlo.collectives(text)] == ["all-reduce"] * 2
    entry = text[text.index("\nENTRY") :]
    shapes = re.findall(r"\bf32\[([\d,]+)\]", entry[entry.index("\n", 1) :])
    assert max(math.prod(map(int, shape.split(","))) for shape in shapes) < 128 * 7 * 7 * 512
