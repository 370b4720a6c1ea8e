r"""Whether a score of subsets ranks the outcomes of the models that they train.

Spearman's rank correlation over subsets is the linear datamodelling score (LDS; Park et
al., ICML 2023). Noise of training lowers it: with a share ICC of the outcome's variance
due to the subset, the correlation with what the subset is worth on average is about

    corrected = raw / sqrt(ICC)                                  (Spearman 1904).

The interval is that of a bootstrap over subsets, jointly with a draw of the ICC from
its own distribution, so that it is as wide as both leave it. The corrected values are
cut off at -1 and 1; where a drawn ICC is not positive, they are at the end that the
sign says. Whether there is any correlation is asked without the ICC, by a permutation
of the outcomes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from goracs_jax.check.reliability import Reliability
from goracs_jax.errors import NumericalError
from goracs_jax.evaluate.metrics import Estimate

RESAMPLES = 2000
PERMUTATIONS = 10_000


class Agreement(NamedTuple):
    """A rank correlation, as it is and corrected, with 95 % intervals."""

    raw: Estimate
    corrected: Estimate
    p: float  # of a correlation at least so large where there is none (one-sided)
    above: Estimate  # corrected, less that of the first score: paired


def agreements(
    scores: Mapping[str, Float[np.ndarray, " subsets"]],
    outcomes: Float[np.ndarray, " subsets"],
    known: Reliability,
    *,
    seed: int,
) -> dict[str, Agreement]:
    """Correlate each score with the outcomes.

    Args:
        scores: Scores by name, which rise with the outcome where they are right.
        outcomes: The outcome of each subset, of one training.
        known: The reliability of such an outcome.
        seed: Seed of resamples and permutations.

    >>> known = Reliability(0.81, 0.5, 0.9, 19.0, 2.0, (7, 8), 2)
    >>> score = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> found = agreements({"a": score}, score[[0, 2, 1, 3, 4]], known, seed=0)["a"]
    >>> found.raw.value, round(found.corrected.value, 6)
    (0.9, 1.0)
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(outcomes), size=(RESAMPLES, len(outcomes)))
    icc = np.concatenate([[known.icc], known.draw(rng, RESAMPLES)])
    ranked = _ranks(np.vstack([outcomes, outcomes[drawn]]))
    found, first = {}, None
    for name, score in scores.items():
        rho = _correlation(_ranks(np.vstack([score, score[drawn]])), ranked)
        with np.errstate(divide="ignore", invalid="ignore"):
            corrected = np.nan_to_num(rho / np.sqrt(np.maximum(icc, 0)))
        corrected = np.clip(corrected, -1, 1)
        p = permutation_p(score, outcomes, rng)
        first = corrected if first is None else first
        raw, right, above = map(_estimate, (rho, corrected, corrected - first))
        found[name] = Agreement(raw, right, p, above)
    return found


def permutation_p(
    score: Float[np.ndarray, " runs"],
    outcomes: Float[np.ndarray, " runs"],
    rng: np.random.Generator,
) -> float:
    """Return p of Spearman's correlation against none, one-sided, by permutation.

    Args:
        score: The score of each run.
        outcomes: Its outcome.
        rng: What permutes the outcomes.

    Raises:
        NumericalError: A number is not finite.

    >>> x = np.arange(20.0)
    >>> permutation_p(x, x, np.random.default_rng(0)) < 1e-4
    True
    """
    if not (np.isfinite(score).all() and np.isfinite(outcomes).all()):
        raise NumericalError("scores and losses must be finite to be ranked.")
    x, y = (stats.rankdata(v) for v in (score, outcomes))
    x -= x.mean()
    shuffled = rng.permuted(np.tile(y, (PERMUTATIONS, 1)), axis=1)
    # Sums of half integers are exact, so equal correlations count as such.
    return float((1 + np.sum(shuffled @ x >= y @ x)) / (1 + PERMUTATIONS))


def _ranks(values: np.ndarray) -> Float[np.ndarray, "rows subsets"]:
    """Return the ranks within each row, less their mean."""
    ranks = stats.rankdata(values, axis=1)
    return ranks - ranks.mean(axis=1, keepdims=True)


def _correlation(x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, " rows"]:
    """Correlate rows with mean 0; 0 where one of them does not vary."""
    size = np.sqrt(np.sum(x * x, axis=1) * np.sum(y * y, axis=1))
    return np.where(size > 0, np.sum(x * y, axis=1) / np.where(size > 0, size, 1), 0.0)


def _estimate(values: np.ndarray) -> Estimate:
    """Take the first value, and the interval of the others, which are resamples."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Estimate(float(values[0]), float(low), float(high))
