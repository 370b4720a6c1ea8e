"""The k cheapest training rows of each validation point, by one pass over C."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from goracs_jax.cost.factors import Cost
from goracs_jax.cost.passes import Block, least_rows


class Nearest(NamedTuple):
    """The cheapest training rows of each validation point j, the cheapest first."""

    rows: Int[jax.Array, "valid length"]
    cost: Float[jax.Array, "valid length"]  # their C_ij


@partial(jax.jit, static_argnames="length")
def nearest_rows(
    cost: Cost, length: int, closed: Bool[jax.Array, " train"] | None = None
) -> Nearest:
    """Find the training rows i with the least C_ij, for each validation point j.

    Of equal costs, the lower row number comes first.

    Args:
        cost: C as factors.
        length: Rows kept per validation point.
        closed: Which training rows to leave out, shape [N]. Where fewer than `length`
            are left, a list ends in rows that are left out or that it has already.

    Returns:
        Row numbers and costs, both of shape [M, length].

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [4.0], [5.0]], np.float32)
    >>> nearest_rows(make_cost(x, x[1:]), 2).rows.tolist()
    [[1, 2], [2, 1]]
    """
    _, n_valid = cost.shape

    def of(block: Block) -> jax.Array:
        if closed is None:
            return block.cost.T
        return jnp.where(closed[block.rows], jnp.inf, block.cost.T)

    near, rows = least_rows(cost, of, n_valid, length)
    return Nearest(rows, near)
