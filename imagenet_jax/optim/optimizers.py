"""Optimizers as optax transformations from gradients to directions; the step multiplies them by -learning_rate(step).

The learning rate stays outside, so that it is a function of the step alone, whatever the optimizer counts.
"""

from collections.abc import Callable, Sequence

import optax

from imagenet_jax.errors import unknown
from imagenet_jax.optim import masks


def sgd(*, momentum: float, nesterov: bool) -> optax.GradientTransformation:
    """Momentum as torch and optax have it, trace = gradient + momentum * trace (Sutskever et al. 2013 scale it by the rate)."""
    return optax.trace(decay=momentum, nesterov=nesterov)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {"sgd": sgd}


def make(
    name: str, *, weight_decay: float, no_weight_decay: Sequence[str], clip_norm: float, **settings: float | bool
) -> optax.GradientTransformation:
    """Clip to `clip_norm` (0: off), add weight_decay * parameter to the gradient where it applies, then the named optimizer.

    The decay is coupled (L2 in the gradient, before momentum), as in torch.optim.SGD.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    chain = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if weight_decay:
        chain.append(optax.add_decayed_weights(weight_decay, lambda params: masks.decayed(params, no_weight_decay)))
    return optax.chain(*chain, OPTIMIZERS[name](**settings))
