r"""How much of the outcome of a training is due to its subset, and how much is noise.

Every one of k subsets is trained with r seeds. With the mean squares between subsets,
B, and within them, W, of a one-way analysis of variance with random effects,

    F = B / W,    ICC(1,1) = (F - 1) / (F + r - 1)

estimates the share of the variance of one training's outcome that its subset decides
(Shrout and Fleiss, Psychological Bulletin 1979). With t = r s_subset^2 / s_noise^2,
F / (1 + t) has an F distribution, from which the interval follows.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

#: Below this share nothing that is correlated with the outcome can be told from noise
#: with a number of trainings that one can pay for.
LEAST_ICC = 0.3


class Reliability(NamedTuple):
    """ICC(1,1) with its 95 % interval, and the analysis of variance behind it."""

    icc: float
    low: float
    high: float
    between: float  # B, mean square
    within: float  # W, likewise: the variance of two trainings of one subset
    freedom: tuple[int, int]  # degrees of freedom of B and W
    seeds: int  # r

    def draw(self, rng: np.random.Generator, size: int) -> Float[np.ndarray, " size"]:
        """Draw ICCs whose quantiles are the ends of its intervals (fiducial draws)."""
        return _icc(self.between, self.within, rng.f(*self.freedom, size), self.seeds)


def reliability(
    outcomes: Float[np.ndarray, "subsets seeds"],
    repeated: Float[np.ndarray, " repeats"] | None = None,
) -> Reliability:
    """Estimate ICC(1,1).

    Args:
        outcomes: The outcome of every subset with every seed, at least two of each.
        repeated: Outcomes of one further subset with other seeds. They say nothing of
            the differences between subsets, and more about those within.

    >>> found = reliability(np.array([[1.0, 1.2], [2.0, 1.8], [3.0, 3.1]]))
    >>> round(found.icc, 3), found.freedom
    (0.985, (2, 3))
    """
    subsets, seeds = outcomes.shape
    means = outcomes.mean(axis=1)
    squares = np.sum((outcomes - means[:, None]) ** 2)
    freedom = subsets * (seeds - 1)
    if repeated is not None and len(repeated):
        squares += np.sum((repeated - repeated.mean()) ** 2)
        freedom += len(repeated) - 1
    between, within = float(seeds * means.var(ddof=1)), float(squares / freedom)
    # A large F / (1 + t) leaves a small t.
    ends = [1.0, *stats.f.ppf([0.975, 0.025], subsets - 1, freedom)]
    icc, low, high = _icc(between, within, np.array(ends), seeds).tolist()
    freedoms = (subsets - 1, freedom)
    return Reliability(icc, low, high, between, within, freedoms, seeds)


def _icc(
    between: float, within: float, q: Float[np.ndarray, " values"], seeds: int
) -> Float[np.ndarray, " values"]:
    """Return the ICC for which F / (1 + t) is q."""
    if not within:
        return np.full(len(q), float(between > 0))
    f = between / within / q
    return (f - 1) / (f + seeds - 1)
