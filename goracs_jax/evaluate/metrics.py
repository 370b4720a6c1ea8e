"""Ranks, HR@K, NDCG@K, AUC and log likelihood, each with a bootstrap interval."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.errors import InputError

#: The cut-offs of the ranking metrics.
KS = (1, 5, 10, 20)
# Weights of resamples that exist at one time.
CHUNK = 1 << 22

# Of a run of equal scores: half of it counts.
SIDES = ("left", "right")

Units = Int[np.ndarray, " examples"]
Statistic = Callable[
    [Float[np.ndarray, "resamples examples"]], Float[np.ndarray, "resamples statistics"]
]


class Estimate(NamedTuple):
    """A metric and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Bootstrap(NamedTuple):
    """What is drawn with replacement, how often, and the seed of the draws.

    `units` numbers what is drawn, from 0: where a user has several examples they are
    drawn together, since they are not independent.
    """

    units: Units
    resamples: int
    seed: int


def ranks(
    distances: Float[np.ndarray, "examples candidates"],
    is_target: Bool[np.ndarray, "examples candidates"],
) -> Int[np.ndarray, " examples"]:
    """How many candidates stand before the target, from 0, as the paper counts them.

    Only strictly closer candidates do, so ties favour the target; where several
    candidates are the target (its title occurs more than once) the closest counts.

    Args:
        distances: Small is good.
        is_target: At least one true in each row.

    Returns:
        One rank per row.

    >>> ranks(np.array([[0.3, 0.1, 0.3, 0.2]]), np.array([[True, False, False, False]]))
    array([2])
    """
    best = np.min(np.where(is_target, distances, np.inf), axis=1, keepdims=True)
    return np.sum(distances < best, axis=1)


def ranking_values(
    rank: Int[np.ndarray, " examples"],
) -> dict[str, Float[np.ndarray, " examples"]]:
    """HR@K = [rank < K] and NDCG@K = [rank < K] / log2(rank + 2) of each example.

    There is one relevant candidate, so the ideal gain is 1. Their means over the
    examples are the metrics.

    >>> {k: v.tolist() for k, v in ranking_values(np.array([2])).items() if "5" in k}
    {'HR@5': [1.0], 'NDCG@5': [0.5]}
    """
    hits = {k: (rank < k).astype(np.float64) for k in KS}
    return {f"HR@{k}": hit for k, hit in hits.items()} | {
        f"NDCG@{k}": hit / np.log2(rank + 2) for k, hit in hits.items()
    }


def means(
    values: Mapping[str, Float[np.ndarray, " examples"]], bootstrap: Bootstrap
) -> dict[str, Estimate]:
    """The mean of each array over the examples.

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
    """Area under the ROC curve: how often a positive example outscores a negative one.

    A tie counts one half. Resamples without one of the classes have no area and are
    left out of the interval.

    Args:
        positive: The class of each example.
        scores: Higher should be positive.
        bootstrap: How the interval is drawn.

    Returns:
        scikit-learn's area and its interval.

    Raises:
        InputError: If all examples are of one class.

    >>> bootstrap = Bootstrap(np.arange(2), 100, 0)
    >>> auc(np.array([True, False]), np.array([0.9, 0.1]), bootstrap)
    Estimate(value=1.0, low=1.0, high=1.0)
    """
    from sklearn.metrics import roc_auc_score  # takes seconds: only where it is needed

    check_classes(positive)
    drawn = _draw(
        lambda weights: weighted_auc(positive, scores, weights)[:, None], bootstrap
    )
    return _estimate(roc_auc_score(positive, scores), drawn[:, 0])


def auc_values(
    positive: Bool[np.ndarray, " examples"], scores: Float[np.ndarray, " examples"]
) -> Float[np.ndarray, " examples"]:
    """What each example adds to the area: numbers whose mean it is.

    With V the share of the other class that an example is on the right side of (a tie
    counts one half), E examples, and C of them of its class: A + (E / C) (V - A). Their
    sample variance over E estimates that of A (DeLong et al., Biometrics 1988).

    Args:
        positive: The class of each example, both among them.
        scores: Higher should be positive.

    Returns:
        One number an example.

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


def log_likelihoods(
    positive: Bool[np.ndarray, " examples"], scores: Float[np.ndarray, " examples"]
) -> Float[np.ndarray, " examples"]:
    """The log of the probability that each example's own class is given, in nats.

    Minus their mean is the log loss. Probabilities are cut where float32 ends, as
    scikit-learn does: one certain mistake costs 16 nats.

    Args:
        positive: The class of each example.
        scores: Probabilities of the positive class.

    >>> log_likelihoods(np.array([True, False]), np.array([0.5, 0.5])).round(3).tolist()
    [-0.693, -0.693]
    """
    own = np.where(positive, scores, 1 - scores.astype(np.float64))
    eps = np.finfo(np.float32).eps
    return np.log(np.clip(own, eps, 1 - eps))


def check_classes(positive: Bool[np.ndarray, " examples"]) -> None:
    """Refuse labels of one class.

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
    r"""The area for many weightings of the examples at once; NaN without both classes.

    sum_{p, n} w_p w_n ([s_p > s_n] + [s_p = s_n] / 2) / (sum_p w_p sum_n w_n): after
    sorting by score, a running sum of the negative weights.
    """
    order = np.argsort(scores, kind="stable")
    _, first = np.unique(scores[order], return_index=True)  # of each group of ties
    weights, positive = weights[:, order], positive[order]
    above = np.add.reduceat(weights * positive, first, axis=1)
    below = np.add.reduceat(weights * ~positive, first, axis=1)
    won = np.sum(above * (np.cumsum(below, axis=1) - below / 2), axis=1)
    pairs = above.sum(axis=1) * below.sum(axis=1)
    return np.where(pairs > 0, won / np.maximum(pairs, 1), np.nan)


def _draw(
    statistic: Statistic, bootstrap: Bootstrap
) -> Float[np.ndarray, "resamples statistics"]:
    """The statistic on resamples; a weight is how often an example's unit was drawn."""
    units, resamples, seed = bootstrap
    rng, count = np.random.default_rng(seed), int(units.max()) + 1
    block = max(1, CHUNK // len(units))
    sizes = [min(block, resamples - first) for first in range(0, resamples, block)]
    draw = lambda size: rng.multinomial(count, np.full(count, 1 / count), size)
    return np.concatenate(
        [statistic(draw(size)[:, units].astype(np.float64)) for size in sizes]
    )


def _estimate(value: float, drawn: Float[np.ndarray, " resamples"]) -> Estimate:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))
