r"""Bounds of the w_i(g) of all rows from below, by one pass over C in float32."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float

from goracs_jax.cost import Block, Cost, map_rows
from goracs_jax.selection.serving import (
    Served,
    last_weighted,
    most_served,
    serve,
    served_by,
    weighted_value,
)
from goracs_jax.shapes import AnyArray


def values_below(
    cost: Cost, g: Float[AnyArray, " valid"], n: int
) -> Float[jax.Array, " train"]:
    r"""Bound w_i(g) of every row from below, by one pass in float32.

    With u = 2^-24 and any order of summation, |x|^2 + |y|^2 - 2 x.y is off by at most
    (dim + 2) u (|x| + |y|)^2 to first order (Higham, Accuracy and Stability of
    Numerical Algorithms, 2002, Sec. 3.1). Centring x moves it by 2 u (|x| + |y|)^2, and
    the root, its square and the two divisions by 6 u (|x| + |y|)^2. Twice the sum,

        e_i = 2 (dim + 10) u (|x_i| + max_j |y_j|)^2,

    also holds the terms of second order, and D_ij >= sqrt(max(D32_ij^2 - e_i, 0)): the
    root is monotone, so nothing is lost where D is near zero. What follows are numbers
    of size D / max(D), lambda and g, each rounded a few times, and a mean of s of them.

    Args:
        cost: C as factors.
        g: Any prices of the validation points, shape [M].
        n: The budget.

    Returns:
        One number per row, shape [N]. The floor of the work is a pass over C: 2 N M dim
        FLOPs.

    >>> from goracs_jax.cost import make_cost
    >>> x = jnp.array([[0.0], [4.0]])
    >>> values_below(make_cost(x, x), jnp.array([0.5, 1.0]), 2).round(3).tolist()
    [-0.25, -0.5]
    """
    n_valid = cost.shape[1]
    return _values_below(cost, g, served_by(n, n_valid), most_served(n, n_valid))


@partial(jax.jit, static_argnames="most")
def _values_below(
    cost: Cost, g: Float[AnyArray, " valid"], served: Served, most: int
) -> Float[jax.Array, " train"]:
    """Return `values_below`, by a program for all budgets that serve `most` or less."""
    unit = jnp.finfo(jnp.float32).eps / 2
    scale, (_, dim) = cost.distance_scale, cost.valid.shape
    farthest = jnp.linalg.norm(jnp.asarray(cost.valid), axis=1).max()
    reward = jnp.asarray(cost.reward)
    size = 1 + jnp.abs(reward).max() + jnp.abs(g).max()

    takes = None if cost.mass is None else jnp.minimum(served.mass, cost.mass)[None]

    def least(block: Block) -> jax.Array:
        reach = (jnp.linalg.norm(block.points, axis=1) + farthest) / scale
        squared = block.cost**2 - (2 * (dim + 10) * unit * reach**2)[:, None]
        reduced = jnp.sqrt(jnp.maximum(squared, 0)) - g
        if takes is None:
            return serve(reduced, None, served, most)[0]
        # At any t it is a bound; its sum has one term for each point below t, whose
        # masses are 2 / n at most together.
        _, t = last_weighted(reduced, takes, served.mass)
        terms = (reduced < t[:, None]).sum(1)
        off = 4 * terms * unit * size / served.n
        return weighted_value(reduced, takes, t, served.n) - off

    no_reward = cost._replace(reward=jnp.zeros_like(reward))
    off = (8 + served.s) * unit * size
    return map_rows(no_reward, least) - (reward + off) / served.n
