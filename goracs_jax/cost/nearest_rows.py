"""The k cheapest training rows of each validation point, by one pass over C."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from goracs_jax.cost.factors import Cost
from goracs_jax.cost.passes import Block, fold_rows


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

    def add(
        best: tuple[jax.Array, jax.Array], block: Block
    ) -> tuple[jax.Array, jax.Array]:
        seen = block.fresh if closed is None else block.fresh & ~closed[block.rows]
        near = jnp.where(seen[:, None], -block.cost, -jnp.inf).T
        rows = jnp.broadcast_to(block.rows, near.shape)
        return merge(([best[0], near], [best[1], rows]))

    def merge(parts: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
        near, rows = (jnp.concatenate([*part], 1) for part in parts)
        # top_k keeps the first of equal entries, and lower rows come earlier.
        top, place = jax.lax.top_k(near, length)
        return top, jnp.take_along_axis(rows, place, 1)

    start = (
        jnp.full((n_valid, length), -jnp.inf),
        jnp.zeros((n_valid, length), jnp.int32),
    )
    near, rows = fold_rows(cost, start, add, merge)
    return Nearest(rows, -near)
