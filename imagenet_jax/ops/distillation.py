"""What a student is asked to learn from a teacher's logits, an example at a time, beside its own loss."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from imagenet_jax.errors import unknown
from imagenet_jax.ops.losses import cross_entropy

# (logits, the teacher's logits), both (n, classes) -> (n,)
Divergence = Callable[[jax.Array, jax.Array], jax.Array]


def soft(logits: jax.Array, taught: jax.Array, *, temperature: float) -> jax.Array:
    """T^2 * KL(teacher || student), both softened: softmax(logits / T).

    Hinton et al. 2015 (arXiv 1503.02531, section 2), who multiply by T^2 so that gradients keep their size when T changes.
    """
    student, teacher = (jax.nn.log_softmax(x / temperature, axis=-1) for x in (logits, taught))
    return temperature**2 * jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)


def hard(logits: jax.Array, taught: jax.Array) -> jax.Array:
    """Cross-entropy with the class that the teacher chooses (DeiT: Touvron et al. 2020, arXiv 2012.12877, equation 3)."""
    return cross_entropy(logits, jnp.argmax(taught, axis=-1))


def make(kind: str, temperature: float) -> Divergence:
    """The config's distill.kind. Raises UserError for an unknown one."""
    kinds: dict[str, Divergence] = {"soft": functools.partial(soft, temperature=temperature), "hard": hard}
    if kind not in kinds:
        raise unknown("kind of distillation, distill.kind,", kind, kinds)
    return kinds[kind]
