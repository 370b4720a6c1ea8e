r"""Intervals over test users and over seeds, at once.

Both are samples: of the users that could be tested, and of the draws of selection and
training. With v_se what example e adds to a metric under seed s (its mean over e is the
metric), and c_su the same gathered by user,

    value = mean c_su,    SE^2 = s_U^2 / U + s_S^2 / S

with s_U^2 the sample variance of the users' means over seeds, s_S^2 that of the seeds'
means over users. Variance that users and seeds share is counted twice, so that SE^2 is
rather too large than too small. The interval is value +- t SE, with t the mean of
Student's quantiles for U - 1 and S - 1 degrees of freedom, weighted by the two terms
of SE^2 (Cochran, Biometrics 1964): it contains the true value in 94 to 99 of 100 cases
even with two or three seeds, where Satterthwaite's degrees of freedom go down to 88.

One seed has a value alone: over users it would look certain, and miss how much another
seed of the same method differs.

A difference of two methods is paired: the same users, the same seeds, v of one minus v
of the other. Where several methods are compared with one, p is corrected for their
number (Holm, Scandinavian Journal of Statistics 1979).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, stats


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval; None where there is one seed."""

    value: float
    low: float | None
    high: float | None

    def excludes_zero(self, sign: int) -> bool:
        """Tell whether all of the interval lies above zero (sign 1), or below (-1)."""
        end = self.low if sign > 0 else self.high
        return end is not None and sign * end > 0


class _Spread(NamedTuple):
    """The terms of SE^2, of users and of seeds, and their degrees of freedom."""

    squares: Float[np.ndarray, " terms"]
    freedom: Float[np.ndarray, " terms"]

    def half(self, p: float) -> float:
        """Return t SE, half the width of the interval that p of all cases are out of.

        With `squares` that are not all zero.
        """
        quantiles = stats.t.isf(p / 2, self.freedom)
        total = self.squares.sum()
        return float(self.squares @ quantiles / np.sqrt(total))


def interval(
    values: Float[np.ndarray, "seeds examples"], units: Int[np.ndarray, " examples"]
) -> Interval:
    """Return the mean over seeds and examples, with its interval over users and seeds.

    Args:
        values: v_se.
        units: Number of each example's user, from 0; at least two users.

    Returns:
        The mean and its interval, which is one point where nothing varies. One seed has
        none.

    >>> interval(np.array([[0.0, 1.0, 1.0, 2.0]] * 2), np.arange(4))
    Interval(value=1.0, low=-0.299, high=2.299)
    >>> interval(np.array([[0.0, 1.0, 1.0, 2.0]]), np.arange(4)).low is None
    True
    """
    value, spread = _spread(values, units)
    if spread is None:
        return Interval(value, None, None)
    half = spread.half(0.05) if spread.squares.any() else 0.0
    return Interval(value, value - half, value + half)


def two_sided_p(
    values: Float[np.ndarray, "seeds examples"], units: Int[np.ndarray, " examples"]
) -> float | None:
    """Return the p for which the interval of 1 - p ends at zero; None with one seed.

    Args:
        values: As for `interval`; differences of two methods.
        units: As for `interval`.

    >>> values = np.array([[0.0, 1.0, 1.0, 2.0]] * 2)
    >>> round(two_sided_p(values, np.arange(4)), 4)  # t = sqrt(6), of 3 degrees
    0.0917
    """
    value, spread = _spread(values, units)
    if spread is None:
        return None
    if not spread.squares.any() or not value:
        return float(not value)
    beyond = lambda log_p: spread.half(np.exp(log_p)) - abs(value)
    # t grows without end as p falls: below 1e-12 nobody counts.
    least = np.log(1e-12)
    if beyond(least) < 0:
        return 1e-12
    found = optimize.root_scalar(beyond, bracket=(least, 0.0), xtol=1e-12)
    return float(np.exp(found.root))


def holm(p: Sequence[float]) -> list[float]:
    """Correct p of several tests, so that below 0.05 one family of 20 is wrong.

    In ascending order, p_k' = max_{j <= k} min(1, (m - j + 1) p_j).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def _spread(values: np.ndarray, units: np.ndarray) -> tuple[float, _Spread | None]:
    """Return the mean and what it is known by; None where there is one seed."""
    per_user = by_user(values, units)
    per_seed = per_user.mean(axis=1)
    value = float(per_seed.mean())
    if len(per_seed) < 2:
        return value, None
    means = (per_user.mean(axis=0), per_seed)
    squares = np.array([m.var(ddof=1) / len(m) for m in means])
    return value, _Spread(squares, np.array([len(m) - 1.0 for m in means]))


def by_user(
    values: Float[np.ndarray, "seeds examples"], units: Int[np.ndarray, " examples"]
) -> Float[np.ndarray, "seeds users"]:
    """Gather values by user: c_su, whose mean over users is the mean over examples.

    c_su = m_s + (U / E) sum_{e of u} (v_se - m_s), so that a user with more examples
    weighs more: where each has one, c = v.

    >>> by_user(np.array([[1.0, 3.0, 8.0]]), np.array([0, 0, 1])).round(3).tolist()
    [[1.333, 6.667]]
    """
    mean = values.mean(axis=1, keepdims=True)
    users = int(units.max()) + 1
    sums = np.stack([np.bincount(units, row, users) for row in values - mean])
    return mean + users / len(units) * sums


def seeds_p(differences: Float[np.ndarray, " seeds"]) -> float | None:
    """Return p of the paired t test across seeds alone; None with fewer than two.

    >>> round(seeds_p(np.array([0.1, 0.2, 0.3])), 4), seeds_p(np.array([0.1]))
    (0.0742, None)
    """
    if len(differences) < 2:
        return None
    # Equal numbers may differ by rounding, which is no spread.
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return float(not differences.any())
    test = stats.ttest_1samp(differences, 0.0)
    return float(np.asarray(test)[1])
