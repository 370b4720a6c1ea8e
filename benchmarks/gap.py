r"""The share of the gap from a random choice to an oracle's that a method closes.

With the outcomes m_s, r_s and o_s of the method, of random and of the oracle under seed
s, all paired, the share is

    q = mean(m - r) / mean(o - r).

Its interval is Fieller's (Journal of the Royal Statistical Society B, 1954): all q
for which a t test of m - r - q (o - r) over the seeds does not refuse a mean of zero.
It has two ends only where the gap itself differs from zero.
"""

import numpy as np
from jaxtyping import Float
from scipy import stats

from goracs_jax.comparison.intervals import Interval
from goracs_jax.errors import InputError


def gap_share(
    method: Float[np.ndarray, " seeds"],
    random: Float[np.ndarray, " seeds"],
    oracle: Float[np.ndarray, " seeds"],
) -> Interval:
    """Return the share of the gap that a method closes, with its 95 % interval.

    Args:
        method: One outcome for each seed, such as the log likelihood.
        random: Outcomes of the random choice, under the same seeds in the same order.
        oracle: Outcomes of the choice that knows the truth, likewise.

    Returns:
        0 for random, 1 for the oracle. The ends are None with one seed, or where the
        gap of random and oracle cannot be told from zero.

    Raises:
        InputError: There is no gap.

    >>> random = np.array([0.5, 0.6, 0.4])
    >>> value, low, high = gap_share(random + [0.1, 0.12, 0.11], random, random + 0.2)
    >>> round(value, 3), round(low, 3), round(high, 3)
    (0.55, 0.426, 0.674)
    """
    gain, gap = method - random, oracle - random
    over, under = float(gain.mean()), float(gap.mean())
    if not under:
        raise InputError("the oracle's mean is that of random: there is no gap.")
    value, seeds = over / under, len(gain)
    if seeds < 2:
        return Interval(value, None, None)
    # (over - q under)^2 <= t^2 Var(gain - q gap) / S is quadratic in q.
    scale = stats.t.ppf(0.975, seeds - 1) ** 2 / seeds
    v = scale * np.cov(gain, gap)
    a, b, c = under**2 - v[1, 1], over * under - v[0, 1], over**2 - v[0, 0]
    if a <= 0:
        return Interval(value, None, None)
    half = np.sqrt(max(b * b - a * c, 0.0))
    return Interval(value, float((b - half) / a), float((b + half) / a))
