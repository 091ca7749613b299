"""Weights for tests of models."""

import re

import jax
import numpy as np
import pytest

from imagenet_jax import tree


@pytest.fixture(scope="session")
def drawn():
    """drawn(model, images): variables by numpy, without compiling `init` (which takes XLA longer than the forward pass).

    No scale is 1, no bias or mean 0, no variance 1: each must be used, and used rightly. Kernels keep the variance of
    what they map (He et al. 2015), so that the logits of deep models stay of order 1.
    """

    def draw(model, images):
        rng = np.random.default_rng(0)

        def leaf(path, shape):
            if path.endswith(("scale", "var")):
                value = rng.uniform(0.5, 1.5, shape.shape)
            elif path.endswith("kernel"):
                value = rng.standard_normal(shape.shape, np.float32) * (2 / np.prod(shape.shape[:-1])) ** 0.5
            else:
                value = rng.normal(0, 0.1, shape.shape)
            return value.astype(shape.dtype)

        return tree.map_with_path(leaf, jax.eval_shape(lambda: model.init(jax.random.key(0), images)))

    return draw


@pytest.fixture(scope="session")
def torch_state(torch):
    """torch_state(params, renames): our parameters, or batch_stats, as a state dict: `a_0/b/kernel` is `a.0.b.weight`.

    Each (pattern, replacement) of `renames` is then applied to every name, in order.
    """

    def state(params, renames=()):
        result = {}
        for path, leaf in tree.paths(params):
            name = re.sub(r"_(\d+)(?=[._])", r".\1", path.replace("/", "."))
            name = re.sub(r"\.(kernel|scale)$", ".weight", name)
            name = re.sub(r"\.(mean|var)$", r".running_\1", name)
            value = np.asarray(leaf)
            if path.endswith("kernel"):
                value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
            for pattern, replacement in renames:
                name = re.sub(pattern, replacement, name)
            result[name] = torch.tensor(value)
        return result

    return state
