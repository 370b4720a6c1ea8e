"""The step that Adam takes for the gradient of one example."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32, PyTree

from goracs_jax.shapes import AnyArray


class Moments(NamedTuple):
    """What Adam remembers of the gradients of a training, over all of its parameters.

    The numbers are in the order of `jax.tree.leaves` of the parameters.
    """

    mu: Float32[AnyArray, " params"]  # mean of the gradients, not corrected for bias
    nu: Float32[AnyArray, " params"]  # mean of their squares, likewise
    count: AnyArray | int  # steps so far


def moments_of(opt_state: PyTree) -> Moments:
    """Take the moments out of the state of an optimiser that contains `optax.adam`.

    >>> moments_of(optax.adamw(1e-3).init({"b": np.ones(2), "a": np.ones(1)})).mu.size
    3
    """
    adam = optax.tree.get(opt_state, "ScaleByAdamState")
    flat = lambda tree: np.concatenate(
        [np.ravel(np.asarray(leaf, np.float32)) for leaf in jax.tree.leaves(tree)]
    )
    return Moments(flat(adam.mu), flat(adam.nu), np.asarray(adam.count))


def adam_directions(
    gradients: Float32[Array, "batch params"], moments: Moments
) -> Float32[Array, "batch params"]:
    r"""Return the direction of the step that Adam would take for each gradient alone.

        m = (b1 mu + (1 - b1) g) / (1 - b1^t),
        v = (b2 nu + (1 - b2) g^2) / (1 - b2^t),     direction = m / (sqrt(v) + eps)

    with t = count + 1, b1 = 0.9, b2 = 0.999 and eps = 1e-8. LESS (Xia et al., ICML
    2024) takes it for training examples, and the plain gradient for validation
    examples. Its released program has eps under the root instead, where it is 1e-4
    beside sqrt(v), and leaves out both corrections, which do not turn the direction.

    Args:
        gradients: One gradient per row.
        moments: Adam's, after some training.

    >>> moments = Moments(np.zeros(2, np.float32), np.zeros(2, np.float32), 0)
    >>> adam_directions(jnp.array([[3.0, -0.1]]), moments).round(4).tolist()
    [[1.0, -1.0]]
    """
    state = optax.ScaleByAdamState(moments.count, moments.mu, moments.nu)

    def step(gradient: Float32[Array, " params"]) -> Float32[Array, " params"]:
        return jnp.asarray(optax.scale_by_adam().update(gradient, state)[0])

    return jax.vmap(step)(gradients)
