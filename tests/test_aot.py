"""The account of a compiled step, and refusals. Compiling for an accelerator takes minutes: docs/aot.md holds what came of it."""

import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from imagenet_jax import aot, config, hlo, sharding
from imagenet_jax.errors import UserError
from imagenet_jax.models import layers, pooling


def test_the_account_of_a_matrix_product_and_its_sum():
    """(1024, 512) rows over 8 devices times (512, 256), summed over all rows."""
    mesh = sharding.make_mesh(jax.devices()[:8])
    step = jax.jit(
        lambda x, w: jnp.sum(x @ w, 0),
        in_shardings=(sharding.batched(mesh), sharding.replicated(mesh)), out_shardings=sharding.replicated(mesh),
    )  # fmt: skip
    compiled = step.lower(jnp.zeros((1024, 512)), jnp.zeros((512, 256))).compile()
    cost = compiled.cost_analysis()
    program = aot.Program(compiled, cost["flops"], cost["bytes accessed"])
    text = aot.account(program, aot.Chip(memory=1e-3, tflops=1e-3, memory_bandwidth=1.0, interconnect=1e-3))
    assert "arguments 1 MiB" in text  # 128 x 512 and 512 x 256 of 4 bytes: 0.75 MiB
    assert "fits 0.001 GB" in text
    assert "all-reduce     1, 0.0 MiB" in text
    assert "communicating 4.10 ms" in text  # twice 1 kB at half of 1 MB/s
    flops = cost["flops"]
    assert 2 * 128 * 512 * 256 <= flops < 1.01 * 2 * 128 * 512 * 256 + 128 * 256 * 2
    assert f"computing {flops / 1e9 * 1e3:.2f} ms" in text


def test_an_unknown_chip_is_named(capsys):
    with pytest.raises(UserError, match=r"No chip 'v5'\. Did you mean 'v5p' or 'v5e'"):
        aot.main(["--config=resnet50", "--topology=v5:2x4"])


@pytest.mark.slow
def test_a_shape_that_no_gpus_have_is_refused(cuda_compiler):
    with pytest.raises(UserError, match=r"give no topology 'h100:many': .*shape"):
        aot.devices_of("h100:many")
    assert len(aot.devices_of("h200:2x8")) == 16


def shallow(*overrides):
    """The training of a ResNet-50 of four blocks, one of each width."""
    overrides = ("model.settings.depths=(1, 1, 1, 1)", *overrides)
    return config.load("resnet50", [f"--config.{text}" for text in overrides])


@pytest.mark.slow
def test_on_gpus_nothing_is_added_in_any_order_and_what_is_there_is_not_computed_again(cuda_compiler, monkeypatch):
    """XLA's gradient of max-pooling is a scatter, whose atomic additions of bfloat16 make no two runs equal."""
    chosen = shallow("batch_size=1024", "bn_group=128")
    program, _ = aot.compile_step(chosen, "h100:8", num_classes=1000)
    text = program.compiled.as_text()
    assert [c.kind for c in hlo.collectives(text)] == ["all-reduce"] * 2
    assert " scatter(" not in text

    monkeypatch.setattr(layers, "join", lambda branch, shortcut: nn.relu(branch + shortcut))
    monkeypatch.setattr(pooling, "max_pool", pooling.xla_max_pool)
    plain, _ = aot.compile_step(chosen, "h100:8", num_classes=1000)
    assert " scatter(" in plain.compiled.as_text()
    assert program.accessed < 0.95 * plain.accessed
    assert program.flops == pytest.approx(plain.flops, rel=0.01)


@pytest.mark.slow
def test_on_tpus_nothing_wide_is_float32_and_all_is_summed_in_two_operations(libtpu):
    """128 images a chip: the smallest map has 128 x 7 x 7 x 512 numbers.

    One all-reduce sums the gradients of kernels in bfloat16, and one the rest in float32.
    """
    chosen = shallow("batch_size=1024", "bn_group=128", "model.settings.fold_bn=True")
    program, _ = aot.compile_step(chosen, "v5e:2x4", num_classes=1000)
    text = program.compiled.as_text()
    assert [c.kind for c in hlo.collectives(text)] == ["all-reduce"] * 2
    entry = text[text.index("\nENTRY") :]
    shapes = re.findall(r"\bf32\[([\d,]+)\]", entry[entry.index("\n", 1) :])
    assert max(math.prod(map(int, shape.split(","))) for shape in shapes) < 128 * 7 * 7 * 512
