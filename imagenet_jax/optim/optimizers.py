"""Optimizers as optax transformations from gradients to directions; the step multiplies them by -learning_rate(step).

The learning rate stays outside, so that it is a function of the step alone, whatever the optimizer counts.
"""

from collections.abc import Callable, Mapping, Sequence

import optax

from imagenet_jax import tree
from imagenet_jax.errors import unknown
from imagenet_jax.optim import masks


def sgd(*, momentum: float, nesterov: bool) -> optax.GradientTransformation:
    """Momentum as torch and optax have it, trace = gradient + momentum * trace (Sutskever et al. 2013 scale it by the rate)."""
    return optax.trace(decay=momentum, nesterov=nesterov)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {"sgd": sgd}


def make(
    name: str,
    *,
    weight_decay: float,
    no_weight_decay: Sequence[str],
    clip_norm: float,
    agc: float = 0.0,
    **settings: float | bool,
) -> optax.GradientTransformation:
    """Clip to `clip_norm` and by `agc` (0: off), add weight_decay * parameter where it applies, then the named optimizer.

    The decay is coupled (L2 in the gradient, before momentum), as in torch.optim.SGD.

    `agc` is adaptive gradient clipping (Brock et al. 2021, arXiv 2102.06171, equation 3): the gradient of each output of a
    kernel, and of each other parameter, has at most `agc` times the norm of that parameter (taken as 1e-3 at least), except
    in the classifier, as there.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    chain = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if agc:
        chain.append(optax.masked(optax.adaptive_grad_clip(agc), masks.not_of_the_head))
    if weight_decay:
        chain.append(optax.add_decayed_weights(weight_decay, lambda params: masks.decayed(params, no_weight_decay)))
    return optax.chain(*chain, OPTIMIZERS[name](**settings))


def scale(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiply the direction of each parameter by the factor of its path: a learning rate of its own."""
    return optax.stateless(lambda updates, _: tree.map_with_path(lambda path, u: u * factors[path], updates))
