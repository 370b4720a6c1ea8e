"""How many training rows are no copies of others."""

import jax
import numpy as np
from jaxtyping import Float

from goracs_jax.cost.factors import Cost
from goracs_jax.cost.passes import map_rows


def count_distinct(cost: Cost) -> int:
    """Count the training rows that differ in place or reward, by weighted sums.

    >>> from goracs_jax.cost import make_cost
    >>> count_distinct(make_cost(np.array([[1.0], [0.0], [1.0]]), np.ones((1, 1))))
    2
    """
    return len(np.unique(np.asarray(_sums(cost)) + np.asarray(cost.reward)))


@jax.jit
def _sums(cost: Cost) -> Float[jax.Array, " train"]:
    weights = jax.random.normal(jax.random.key(0), cost.centre.shape)
    # Not a matrix product, in which equal rows could get different sums.
    return map_rows(cost, lambda block: (block.points * weights).sum(1))
