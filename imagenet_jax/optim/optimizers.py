"""Optimizers as optax transformations from gradients to directions; the step multiplies them by -learning_rate(step).

The learning rate stays outside, so that it is a function of the step alone, whatever the optimizer counts. Where a paper puts it
inside the momentum (LARS, TensorFlow's RMSprop), a change of the rate acts at once here instead of over the next 1 / (1 - momentum)
steps, as in torch.

Each function says where its weight decay goes. Coupled: into the gradient, before all averages (L2). Decoupled: into the direction,
past them (Loshchilov and Hutter 2017, arXiv 1711.05101), so that a step takes learning_rate * weight_decay of the parameter, as in
torch.optim.AdamW. A decay that follows the schedule but not the peak (big_vision, Composer) is that value divided by the peak here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import optax
from optax import contrib

from imagenet_jax import tree
from imagenet_jax.errors import UserError, unknown
from imagenet_jax.optim import masks
from imagenet_jax.settings import check

SHARES = ("momentum", "b1", "b2", "rho")  # what an average keeps of itself


class Decay(NamedTuple):
    """`add`: updates + weight_decay * parameter, where it applies (nothing for 0). `applies`: parameters -> True where."""

    add: optax.GradientTransformation
    applies: Callable[[Any], Any]


def sgd(decay: Decay, *, momentum: float = 0.9, nesterov: bool = True) -> optax.GradientTransformation:
    """trace = gradient + momentum * trace, as torch and optax have it (Sutskever et al. 2013 scale it by the rate). Coupled."""
    return optax.chain(decay.add, optax.trace(momentum, nesterov))


def sgdw(decay: Decay, *, momentum: float = 0.9, nesterov: bool = False) -> optax.GradientTransformation:
    """SGD with momentum, decoupled (arXiv 1711.05101, algorithm 1; Composer's DecoupledSGDW)."""
    return optax.chain(optax.trace(momentum, nesterov), decay.add)


def rmsprop(
    decay: Decay, *, momentum: float = 0.9, rho: float = 0.9, eps: float = 1e-3, initial: float = 1.0, eps_in_root: bool = True
) -> optax.GradientTransformation:
    """The gradient over the root of its mean square, then momentum. Coupled.

    The defaults are TensorFlow's, by which the EfficientNets were trained: the mean starts at 1 and epsilon lies inside the root.
    torch.optim.RMSprop: `initial` 0, `eps_in_root` False.
    """
    return optax.chain(decay.add, optax.scale_by_rms(rho, eps, initial, eps_in_root), optax.trace(momentum))


def adam(decay: Decay, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2014, algorithm 1). Coupled, as in torch.optim.Adam."""
    return optax.chain(decay.add, optax.scale_by_adam(b1, b2, eps))


def adamw(decay: Decay, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam, decoupled."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps), decay.add)


def nadamw(decay: Decay, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam with Nesterov's momentum (Dozat 2016), decoupled."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps, nesterov=True), decay.add)


def lamb(decay: Decay, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> optax.GradientTransformation:
    """Adam plus decay, scaled to the norm of each parameter (You et al. 2019, arXiv 1904.00962, algorithm 2).

    The decay counts in the norm. What it does not apply to keeps Adam's direction, as in timm and apex.
    """
    trust = optax.masked(optax.scale_by_trust_ratio(), decay.applies)
    return optax.chain(optax.scale_by_adam(b1, b2, eps), decay.add, trust)


def lars(decay: Decay, *, momentum: float = 0.9, trust: float = 1e-3, nesterov: bool = False) -> optax.GradientTransformation:
    """SGD on gradients scaled to `trust` times the norm of each parameter (You et al. 2017, arXiv 1708.03888). Coupled.

    The norm is that of the gradient with its decay (the paper adds two norms). What the decay does not apply to is not scaled.
    """
    ratio = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=trust), decay.applies)
    return optax.chain(decay.add, ratio, optax.trace(momentum, nesterov))


def lion(decay: Decay, *, b1: float = 0.9, b2: float = 0.99) -> optax.GradientTransformation:
    """The sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675, algorithm 2), decoupled."""
    return optax.chain(optax.scale_by_lion(b1, b2), decay.add)


def muon(
    decay: Decay, *, momentum: float = 0.95, steps: int = 5, b1: float = 0.9, b2: float = 0.999, rms: float = 0.2
) -> optax.GradientTransformation:
    """Orthogonal momentum for kernels (Jordan et al. 2024), Nesterov's Adam for the head and all that is no kernel. Decoupled.

    A convolution's kernel is a matrix from kernel positions and inputs to outputs. Directions have root mean square `rms`, about
    that of Adam's, so that one learning rate serves both (Liu et al. 2025, arXiv 2502.16982, section 2.2).
    """

    def matrices(params: Any) -> Any:
        def one(path: str, leaf: Any) -> contrib.MuonDimensionNumbers | None:
            if not path.endswith("kernel") or masks.HEAD.match(path):
                return None
            return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,))

        return tree.map_with_path(one, params)

    descent = contrib.muon(
        1.0,
        ns_steps=steps,
        beta=momentum,
        adam_b1=b1,
        adam_b2=b2,
        consistent_rms=rms,
        muon_weight_dimension_numbers=matrices,
    )
    return optax.chain(descent, optax.scale(-1.0), decay.add)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "sgdw": sgdw,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "nadamw": nadamw,
    "lamb": lamb,
    "lars": lars,
    "lion": lion,
    "muon": muon,
}


def make(
    name: str,
    *,
    weight_decay: float,
    no_weight_decay: Sequence[str],
    clip_norm: float,
    agc: float = 0.0,
    **settings: float | bool,
) -> optax.GradientTransformation:
    """Clip to `clip_norm` and by `agc` (0: off), then the named optimizer with its `settings` and weight decay where it applies.

    `agc` is adaptive gradient clipping (Brock et al. 2021, arXiv 2102.06171, equation 3): the gradient of each output of a
    kernel, and of each other parameter, has at most `agc` times the norm of that parameter (taken as 1e-3 at least), except
    in the classifier, as there. Raises UserError for an unknown optimizer or setting, or a setting of the wrong type or size.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    function = OPTIMIZERS[name]
    check(f"optimizer {name!r}", settings, function.__kwdefaults__ or {})
    for key, value in settings.items():
        below = 1 if key in SHARES else math.inf
        if not 0 <= value < below:
            raise UserError(f"optimizer.{key}={value} must be at least 0{', and less than 1' if key in SHARES else ''}.")

    def applies(params: Any) -> Any:
        return masks.decayed(params, no_weight_decay)

    add = optax.add_decayed_weights(weight_decay, applies) if weight_decay else optax.identity()
    chain = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if agc:
        chain.append(optax.masked(optax.adaptive_grad_clip(agc), masks.not_of_the_head))
    return optax.chain(*chain, function(Decay(add, applies), **settings))


def without_momentum(name: str, settings: Mapping[str, float | bool]) -> None:
    """Raise UserError where the named optimizer with its `settings` keeps a momentum, whose place schedule-free learning takes."""
    defaults = getattr(OPTIMIZERS.get(name), "__kwdefaults__", {})
    for key, value in {**defaults, **settings}.items():
        if key in ("momentum", "b1") and value:
            raise UserError(f"schedule_free is the momentum, but {name} has {key}={value}. Set --config.optimizer.{key}=0.0.")


def scale(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiply the direction of each parameter by the factor of its path: a learning rate of its own."""
    return optax.stateless(lambda updates, _: tree.map_with_path(lambda path, u: u * factors[path], updates))
