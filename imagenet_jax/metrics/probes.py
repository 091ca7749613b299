"""Small classifiers on frozen features, by which features are judged: nearest neighbours, ridge regression, logistic regression.

All are deterministic and take features (n, d) with labels int (n,) in 0 .. classes - 1. The two regressions expect features from
`standardized`, so that a penalty means the same for every model.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

CHUNK = 512  # queries whose similarities to all of the training split are held at once
TOLERANCE = 1e-4  # of the gradient's norm; the loss is then within TOLERANCE^2 / (2 penalty) of the least


class Linear(NamedTuple):
    """Scores are features @ kernel + bias. `penalty` is the one it was fitted with, `converged` False where the steps ran out."""

    kernel: np.ndarray  # (d, classes)
    bias: np.ndarray  # (classes,)
    penalty: float
    converged: bool = True

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The class with the highest score, int (n,)."""
        return np.argmax(features @ self.kernel + self.bias, axis=-1)


def standardized(features: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """All of them less the mean of the first and divided by one number, which makes 1 of the first one's average variance."""
    mean = features.mean(0, dtype=np.float64)
    scale = np.sqrt(np.mean(features.var(0, dtype=np.float64)))
    return [((x - mean) / max(scale, 1e-12)).astype(x.dtype) for x in (features, *others)]


def nearest(
    features: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int, *, k: int = 20, temperature: float = 0.07
) -> np.ndarray:
    """The class of each query, int (n,), by weighted votes of its `k` nearest in `features` (fewer where there are fewer).

    Nearest by the cosine s; each vote weighs exp(s / temperature) (Wu et al. 2018, arXiv 1805.01978, section 3.4; k = 20 and 0.07
    as Caron et al. 2021, arXiv 2104.14294, evaluate with).
    """
    bank, queries = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (features, queries))

    def vote(bank: jax.Array, labels: jax.Array, queries: jax.Array) -> jax.Array:
        similarities = jnp.matmul(queries, bank.T, precision="highest")
        best, index = jax.lax.top_k(similarities, min(k, len(bank)))
        votes = jnp.exp(best / temperature)[:, :, None] * jax.nn.one_hot(labels[index], classes)
        return jnp.argmax(jnp.sum(votes, 1), -1)

    compiled, on_device = jax.jit(vote), (jnp.asarray(bank), jnp.asarray(labels))
    padded = np.pad(queries, ((0, -len(queries) % CHUNK), (0, 0)))
    found = [np.asarray(compiled(*on_device, padded[i : i + CHUNK])) for i in range(0, len(padded), CHUNK)]
    return np.concatenate(found)[: len(queries)]


def ridge(features: np.ndarray, labels: np.ndarray, classes: int, penalties: Sequence[float]) -> Linear:
    """Least squares onto targets of 1 for the class and -1 for the others, in closed form, in float64.

    Minimises mean squared error + penalty * |kernel|^2, with the penalty whose squared error on examples left out one at a time
    is least; that error needs no refitting: residual / (1 - leverage) (Allen 1974; Hastie et al., ESL, equation 5.27).
    """
    x = features.astype(np.float64)
    y = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    x_mean, y_mean, n = x.mean(0), y.mean(0), len(x)
    x, y = x - x_mean, y - y_mean
    values, vectors = np.linalg.eigh(x.T @ x)
    values, z = np.maximum(values, 0), x @ vectors
    target = z.T @ y

    def left_out(penalty: float) -> float:
        shrunk = 1 / (values + n * penalty)
        leverage = 1 / n + np.square(z) @ shrunk
        return float(np.mean(np.square((y - z @ (shrunk[:, None] * target)) / (1 - leverage)[:, None])))

    best = min(penalties, key=left_out)
    kernel = vectors @ (target / (values + n * best)[:, None])
    return Linear(kernel, y_mean - x_mean @ kernel, best)


def logistic(
    features: np.ndarray, labels: np.ndarray, classes: int, penalty: float, *, start: Linear | None = None, steps: int = 500
) -> Linear:
    """Multinomial logistic regression by L-BFGS (Liu and Nocedal 1989), from `start` or from zero, in the dtype of the features.

    Minimises mean cross-entropy + penalty / 2 * |kernel|^2 until the gradient's norm is at most `TOLERANCE`, in `steps` at most.
    """
    begin = np.zeros((features.shape[1], classes)), np.zeros(classes)
    if start is not None:
        begin = start.kernel, start.bias
    weights = tuple(jnp.asarray(part, features.dtype) for part in begin)
    (kernel, bias), norm = _minimizer(steps)(weights, features, labels, jnp.asarray(penalty, features.dtype))
    return Linear(np.asarray(kernel), np.asarray(bias), penalty, bool(norm <= TOLERANCE))


@functools.cache  # so that all penalties share what is compiled: the line search takes 5 s
def _minimizer(steps: int) -> Callable[..., tuple[Any, jax.Array]]:
    """((kernel, bias), features, labels, penalty) -> the (kernel, bias) found, and the gradient's norm there."""
    solver = optax.lbfgs()

    def minimize(weights: Any, x: jax.Array, y: jax.Array, penalty: jax.Array) -> tuple[Any, jax.Array]:
        def loss(weights: Any) -> jax.Array:
            kernel, bias = weights
            logits = jnp.matmul(x, kernel, precision="highest") + bias[None, :]
            entropy = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))
            return entropy + penalty / 2 * jnp.sum(jnp.square(kernel))

        def going_on(carry: Any) -> jax.Array:
            *_, norm, count = carry
            return (norm > TOLERANCE) & (count < steps)

        def step(carry: Any) -> Any:
            weights, state, value, grad, _, count = carry
            updates, state = solver.update(grad, state, weights, value=value, grad=grad, value_fn=loss)
            weights = optax.apply_updates(weights, updates)
            value, grad = optax.value_and_grad_from_state(loss)(weights, state=state)
            return weights, state, value, grad, optax.tree.norm(grad), count + 1

        value, grad = jax.value_and_grad(loss)(weights)
        first = (weights, solver.init(weights), value, grad, optax.tree.norm(grad), jnp.zeros((), jnp.int32))
        weights, *_, norm, _ = jax.lax.while_loop(going_on, step, first)
        return weights, norm

    return jax.jit(minimize)
