"""Near duplicates: the pairs of rows that are closer than a radius."""

import numpy as np
from jaxtyping import Bool, Int

from goracs_jax.cost import Cost, centred_rows
from goracs_jax.errors import InputError

MOST_PAIRS = 20_000_000
ENTRIES = 1 << 24  # distances that are looked at together


def near_pairs(
    cost: Cost, radius: float | int, open_rows: Bool[np.ndarray, " train"]
) -> Int[np.ndarray, "pairs 2"]:
    """List the pairs of training rows whose distance is less than a radius.

    A float32 product finds them with room for its rounding, and float64 decides. It
    takes N^2 dim FLOPs for N open rows.

    Args:
        cost: C as factors, in whose embeddings distances are taken.
        radius: In the units of the embeddings.
        open_rows: The rows that count.

    Returns:
        Row numbers, each pair in both orders, sorted.

    Raises:
        InputError: There are too many pairs.

    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.array([[0.0], [0.5], [2.0]]), np.zeros((1, 1)))
    >>> near_pairs(cost, 1.0, np.ones(3, bool)).tolist()
    [[0, 1], [1, 0]]
    """
    rows = np.flatnonzero(open_rows)
    if len(rows) < 2:
        return np.empty((0, 2), np.int64)
    x = np.asarray(centred_rows(cost, rows))
    lengths = (x * x).sum(1)
    # |x|^2 + |y|^2 - 2 x.y in float32, see `values_below`.
    slack = 8 * (x.shape[1] + 4) * 2.0**-24 * float(lengths.max())
    near = np.float32(min(radius, 1e18)) ** 2 + np.float32(slack)
    found, many, step = [], 0, max(1, ENTRIES // len(x))
    for first in range(0, len(x), step):
        part = x[first : first + step]
        squared = lengths[first : first + step, None] + lengths[first:]
        squared -= 2 * part @ x[first:].T
        one, two = np.nonzero(squared < near)
        one, two = (one + first, two + first)
        one, two = one[one < two], two[one < two]
        close = [
            np.linalg.norm(x[i].astype(np.float64) - x[j], axis=1) < radius
            for i, j in zip(*(_cut(ends) for ends in (one, two)), strict=True)
        ]
        close = np.concatenate(close) if close else np.zeros(0, bool)
        found.append(np.stack([one[close], two[close]], 1))
        many += len(found[-1])
        if many > MOST_PAIRS:
            raise InputError(
                f"over {MOST_PAIRS} pairs of training rows are closer than {radius:g}, "
                "the radius of near rows: give a smaller one."
            )
    pairs = rows[np.concatenate(found)]
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    return pairs[np.lexsort(pairs.T[::-1])]


def cliques(
    near: Int[np.ndarray, "pairs 2"],
    group: Int[np.ndarray, " train"] | None,
    n_train: int,
) -> Int[np.ndarray, " train"]:
    """Part the rows into sets whose rows are all near each other and of one group.

    Each row in turn joins the set of the first of its earlier near rows where it is
    near to all.

    >>> cliques(np.array([[0, 1], [1, 0], [1, 2], [2, 1]]), None, 3).tolist()
    [0, 0, 2]
    """
    clique = np.arange(n_train)
    members: dict[int, set[int]] = {}
    starts = np.searchsorted(near[:, 0], np.arange(n_train + 1))
    for row in np.unique(near[:, 0]).tolist():
        mine = near[starts[row] : starts[row + 1], 1]
        around = set(mine.tolist())
        for other in mine[mine < row].tolist():
            home = int(clique[other])
            alike = group is None or group[home] == group[row]
            if alike and members.get(home, {home}) <= around:
                clique[row] = home
                members.setdefault(home, {home}).add(row)
                break
    return clique


def _cut(ends: np.ndarray, size: int = 1 << 16) -> list[np.ndarray]:
    return [ends[i : i + size] for i in range(0, len(ends), size)]
