"""Ranks, HR@K, NDCG@K and AUC, with bootstrap confidence intervals."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.errors import InputError

#: The cut-offs of the ranking metrics.
KS = (1, 5, 10, 20)
# Both ends of a run of equal scores; their mean counts a tie as one half.
SIDES = ("left", "right")

Units = Int[np.ndarray, " examples"]
Statistic = Callable[
    [Float[np.ndarray, "resamples examples"]], Float[np.ndarray, "resamples statistics"]
]


class Estimate(NamedTuple):
    """A metric and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Bootstrap(NamedTuple):
    """The settings of a bootstrap: units drawn with replacement, and how often.

    `units` is the number, from 0, of the unit that each example belongs to. All
    examples of a unit are drawn together: a user's examples are one unit, because they
    are not independent.
    """

    units: Units
    resamples: int
    seed: int
    block: int = 1 << 22  # weights (resamples x examples) in memory at one time


def ranks(
    distances: Float[np.ndarray, "examples candidates"],
    is_target: Bool[np.ndarray, "examples candidates"],
) -> Int[np.ndarray, " examples"]:
    """Return the rank of each target, counted from 0 as in the paper.

    The rank is the number of candidates that are strictly closer than the target, so
    ties favour the target. If several candidates are the target, because its title
    occurs more than once, the closest of them counts.

    Args:
        distances: Distance of each candidate; the smallest ranks first.
        is_target: Whether each candidate is the target; at least one is in every row.

    Returns:
        One rank per example.

    >>> ranks(np.array([[0.3, 0.1, 0.3, 0.2]]), np.array([[True, False, False, False]]))
    array([2])
    """
    best = np.min(np.where(is_target, distances, np.inf), axis=1, keepdims=True)
    return np.sum(distances < best, axis=1)


def ranking_values(
    rank: Int[np.ndarray, " examples"],
) -> dict[str, Float[np.ndarray, " examples"]]:
    """Return HR@K and NDCG@K of each example, whose means are the metrics.

    HR@K = [rank < K] and NDCG@K = [rank < K] / log2(rank + 2). Each example has one
    relevant candidate, so the ideal discounted gain is 1.

    Args:
        rank: Ranks of the targets, from 0.

    Returns:
        One array per metric, for every K in `KS`.

    >>> {k: v.tolist() for k, v in ranking_values(np.array([2])).items() if "5" in k}
    {'HR@5': [1.0], 'NDCG@5': [0.5]}
    """
    hits = {k: (rank < k).astype(np.float64) for k in KS}
    return {f"HR@{k}": hit for k, hit in hits.items()} | {
        f"NDCG@{k}": hit / np.log2(rank + 2) for k, hit in hits.items()
    }


def tied_ranking_values(
    score: float, rivals: Float[np.ndarray, " rivals"] | Int[np.ndarray, " rivals"]
) -> dict[str, float]:
    """Return HR@K and NDCG@K of one example, the mean over all orders of equal scores.

    Args:
        score: That of the right candidate; the largest ranks first.
        rivals: Those of the others.

    >>> round(tied_ranking_values(1.0, np.array([2.0, 1.0, 0.0]))["NDCG@5"], 3)
    0.565
    """
    places = np.sum(rivals > score) + np.arange(np.sum(rivals == score) + 1)
    return {name: float(v.mean()) for name, v in ranking_values(places).items()}


def means(
    values: Mapping[str, Float[np.ndarray, " examples"]], bootstrap: Bootstrap
) -> dict[str, Estimate]:
    """Estimate the mean of each array over the examples.

    Args:
        values: One value per example for each metric.
        bootstrap: The settings of the bootstrap.

    Returns:
        The mean of each metric, with its interval.

    >>> means({"HR@1": np.ones(4)}, Bootstrap(np.arange(4), 100, 0))
    {'HR@1': Estimate(value=1.0, low=1.0, high=1.0)}
    """
    columns = np.stack(list(values.values()), axis=1)
    drawn = _draw(
        lambda weights: weights @ columns / weights.sum(axis=1, keepdims=True),
        bootstrap,
    )
    found = zip(columns.mean(axis=0), drawn.T, strict=True)
    return {name: _estimate(*pair) for name, pair in zip(values, found, strict=True)}


def auc(
    positive: Bool[np.ndarray, " examples"],
    scores: Float[np.ndarray, " examples"],
    bootstrap: Bootstrap,
) -> Estimate:
    """Estimate the area under the ROC curve (AUC).

    It is the probability that a positive example scores higher than a negative one; a
    tie counts one half. Resamples that contain only one of the classes have no area and
    are left out of the interval.

    Args:
        positive: Whether each example is positive.
        scores: Scores that should be higher for positive examples.
        bootstrap: The settings of the bootstrap.

    Returns:
        scikit-learn's area, with its interval.

    Raises:
        InputError: All examples are of one class.

    >>> bootstrap = Bootstrap(np.arange(2), 100, 0)
    >>> auc(np.array([True, False]), np.array([0.9, 0.1]), bootstrap)
    Estimate(value=1.0, low=1.0, high=1.0)
    """
    from sklearn.metrics import roc_auc_score  # imported here: it takes seconds

    check_classes(positive)
    drawn = _draw(
        lambda weights: weighted_auc(positive, scores, weights)[:, None], bootstrap
    )
    return _estimate(roc_auc_score(positive, scores), drawn[:, 0])


def auc_values(
    positive: Bool[np.ndarray, " examples"], scores: Float[np.ndarray, " examples"]
) -> Float[np.ndarray, " examples"]:
    """Return values per example whose mean is the area under the ROC curve, A.

    Let V be the share of the other class against which an example is ranked correctly
    (a tie counts one half), E the number of examples, and C the number in the example's
    class. The example's value is A + (E / C) (V - A). The sample variance of the
    values, divided by E, estimates the variance of A (DeLong et al., Biometrics 1988).

    Args:
        positive: Whether each example is positive; both classes must occur.
        scores: Scores that should be higher for positive examples.

    Returns:
        One value per example.

    >>> scores = np.array([0.9, 0.5, 0.1])
    >>> auc_values(np.array([True, False, True]), scores).tolist()
    [1.25, 0.5, -0.25]
    """
    yes, no = np.sort(scores[positive]), np.sort(scores[~positive])
    place = lambda x, among: sum(np.searchsorted(among, x, s) for s in SIDES) / 2
    right = np.where(positive, place(scores, no) / len(no), 0.0)
    right += np.where(positive, 0.0, 1 - place(scores, yes) / len(yes))
    area = right[positive].mean()
    size = np.where(positive, len(yes), len(no))
    return area + len(scores) / size * (right - area)


def check_classes(positive: Bool[np.ndarray, " examples"]) -> None:
    """Check that the examples are not all of one class.

    Args:
        positive: Whether each example is positive.

    Raises:
        InputError: All examples are of one class.

    >>> check_classes(np.array([True, True]))
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: all 2 test examples are Yes: AUC compares Yes ...
    """
    if positive.all() or not positive.any():
        raise InputError(
            f"all {len(positive)} test examples are {'Yes' if positive[0] else 'No'}: "
            "AUC compares Yes with No, so give examples of both."
        )


def weighted_auc(
    positive: Bool[np.ndarray, " examples"],
    scores: Float[np.ndarray, " examples"],
    weights: Float[np.ndarray, "resamples examples"],
) -> Float[np.ndarray, " resamples"]:
    r"""Return the area under the ROC curve for many weightings of the examples.

    The area is sum_{p, n} w_p w_n ([s_p > s_n] + [s_p = s_n] / 2), divided by
    sum_p w_p sum_n w_n, over positive examples p and negative examples n. Sorting by
    score turns the double sum into one running sum of the negative weights.

    Args:
        positive: Whether each example is positive.
        scores: Scores that should be higher for positive examples.
        weights: One weight per example, for each weighting.

    Returns:
        One area per weighting; NaN where one of the classes has no weight.
    """
    order = np.argsort(scores, kind="stable")
    # Where each group of equal scores starts.
    _, first = np.unique(scores[order], return_index=True)
    weights, positive = weights[:, order], positive[order]
    above = np.add.reduceat(weights * positive, first, axis=1)
    below = np.add.reduceat(weights * ~positive, first, axis=1)
    won = np.sum(above * (np.cumsum(below, axis=1) - below / 2), axis=1)
    pairs = above.sum(axis=1) * below.sum(axis=1)
    return np.where(pairs > 0, won / np.maximum(pairs, 1), np.nan)


def _draw(
    statistic: Statistic, bootstrap: Bootstrap
) -> Float[np.ndarray, "resamples statistics"]:
    """Compute a statistic on resamples.

    The weight of an example is how many times its unit was drawn.
    """
    units, resamples, seed, weights = bootstrap
    rng, count = np.random.default_rng(seed), int(units.max()) + 1
    block = max(1, weights // len(units))
    sizes = [min(block, resamples - first) for first in range(0, resamples, block)]
    draw = lambda size: rng.multinomial(count, np.full(count, 1 / count), size)
    return np.concatenate(
        [statistic(draw(size)[:, units].astype(np.float64)) for size in sizes]
    )


def _estimate(value: float, drawn: Float[np.ndarray, " resamples"]) -> Estimate:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))
