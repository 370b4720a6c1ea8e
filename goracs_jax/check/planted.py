"""Rows with a planted mistake, and whether a score finds them.

Where the outputs are a few classes, some rows get another class; where they are texts,
some rows exchange theirs. A space in which distance means anything for training puts
such rows farther from the validation rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from goracs_jax.errors import InputError
from goracs_jax.evaluate.metrics import Estimate, auc_values
from goracs_jax.selection.classes import Classes

#: Neighbours whose mean distance is the score of a row.
NEIGHBOURS = 10
#: Up to so many distinct outputs are classes.
MOST_CLASSES = 20


class Found(NamedTuple):
    """AUC of the planted flag by a score."""

    auc: Estimate
    p: float  # of an AUC so large where the score knows nothing (one-sided)


def plant(
    outputs: list[str],
    share: float,
    *,
    seed: int,
    fits: Callable[[int, str], bool] = lambda row, output: True,
) -> tuple[list[str], Bool[np.ndarray, " rows"]]:
    """Change the outputs of some rows, as if they were wrong.

    Args:
        outputs: The output of each row.
        share: The share of rows to change, in (0, 1).
        seed: Seed of the rows and of what they get.
        fits: Whether a row may get an output; one that would be too long keeps its own.

    Returns:
        The outputs, and which rows have another one than before.

    Raises:
        InputError: There is but one output, so that none can be wrong, or no other one
            fits.

    >>> changed, flag = plant(["Yes"] * 5 + ["No"] * 5, 0.4, seed=0)
    >>> int(flag.sum()), int(flag[:5].sum()) == changed[:5].count("No")
    (4, True)
    """
    names = sorted(set(outputs))
    if len(names) < 2:
        raise InputError(
            "all outputs are the same, so none can be planted wrong: give examples "
            "that differ in their outputs."
        )
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(outputs))[: max(2, round(share * len(outputs)))]
    changed = list(outputs)
    if len(names) <= MOST_CLASSES:
        for row in rows.tolist():
            others = [x for x in names if x != outputs[row] and fits(row, x)]
            if others:
                changed[row] = str(rng.choice(others))
    else:
        for row, other in zip(rows.tolist(), np.roll(rows, 1).tolist(), strict=True):
            if fits(row, outputs[other]):
                changed[row] = outputs[other]
    if changed == outputs:
        raise InputError(
            "no example could be given another one's output within the longest text "
            "that is allowed: give a smaller --max-length with --too-long cut, or "
            "shorter texts."
        )
    return changed, np.array([a != b for a, b in zip(outputs, changed, strict=True)])


def found_by(
    flag: Bool[np.ndarray, " rows"], score: Float[np.ndarray, " rows"]
) -> Found:
    """Estimate the AUC of a flag by a score, with DeLong's interval.

    Args:
        flag: The rows that were changed: some, not all.
        score: Larger where a row seems worse.

    Returns:
        The area; p is that of the Mann-Whitney test.

    >>> found = found_by(np.arange(9) > 5, np.arange(9.0))
    >>> found.auc.value, found.p < 0.05
    (1.0, True)
    """
    values = auc_values(flag, score)
    area = float(values.mean())
    half = float(stats.norm.ppf(0.975) * np.sqrt(values.var(ddof=1) / len(values)))
    test = stats.mannwhitneyu(score[flag], score[~flag], alternative="greater")
    ends = max(area - half, 0.0), min(area + half, 1.0)
    return Found(Estimate(area, *ends), float(test.pvalue))


def neighbour_distances(
    x: Float[np.ndarray, "train dim"],
    y: Float[np.ndarray, "valid dim"],
    classes: Classes | None = None,
    k: int = NEIGHBOURS,
) -> Float[np.ndarray, " train"]:
    """Return the mean distance of each row to its k nearest validation rows.

    Args:
        x: Training rows.
        y: Validation rows.
        classes: The classes of both, where neighbours are to be of the row's own; the
            rows of a class without validation rows get the largest distance of all.
        k: Number of neighbours; all where there are fewer.

    >>> neighbour_distances(np.array([[0.0], [5.0]]), np.array([[1.0], [3.0]]), k=2)
    array([2., 3.])
    """
    from sklearn.neighbors import NearestNeighbors  # slow to import

    def of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        near = NearestNeighbors(n_neighbors=min(k, len(y)), algorithm="brute").fit(y)
        return near.kneighbors(x)[0].mean(axis=1)

    if classes is None:
        return of(x, y)
    out = np.full(len(x), np.nan)
    for c in range(len(classes.names)):
        mine, theirs = classes.train == c, classes.valid == c
        if mine.any() and theirs.any():
            out[mine] = of(x[mine], y[theirs])
    return np.where(np.isnan(out), np.nanmax(out), out)
