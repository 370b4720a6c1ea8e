"""Whether the loss rises from the nearest rows of the pool to those farthest away."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from goracs_jax.check.agreement import permutation_p


class Trend(NamedTuple):
    """The mean loss of each quantile, and whether it rises."""

    losses: list[float]  # mean of the runs of each quantile, nearest rows first
    slope: float  # least squares, loss per quantile
    p: float  # of a rise (rank correlation) where there is none, by permutation


def trend(
    quantiles: Int[np.ndarray, " runs"],
    losses: Float[np.ndarray, " runs"],
    *,
    seed: int,
) -> Trend:
    """Test whether losses rise with the quantile of distance.

    Args:
        quantiles: The quantile that each run drew its rows from, 0 for the nearest.
        losses: The loss of each run.
        seed: Seed of the permutations.

    >>> found = trend(np.array([0, 1, 2, 0, 1, 2]), np.arange(6.0) % 3, seed=0)
    >>> found.losses, round(found.slope, 6), found.p < 0.05
    ([0.0, 1.0, 2.0], 1.0, True)
    """
    means = [float(losses[quantiles == q].mean()) for q in range(quantiles.max() + 1)]
    slope = np.polynomial.Polynomial.fit(quantiles, losses, 1).convert().coef[1]
    p = permutation_p(quantiles.astype(float), losses, np.random.default_rng(seed))
    return Trend(means, float(slope), p)
