"""Weights for tests of models."""

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
