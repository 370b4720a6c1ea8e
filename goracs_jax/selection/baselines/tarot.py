"""TAROT: the nearest rows of every validation point, and how many of them to take."""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from goracs_jax.cost import (
    Cost,
    exact_cost,
    make_cost,
    nearest_rows,
    to_points,
    without_reward,
)
from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_array
from goracs_jax.selection.baselines.random import selection_of
from goracs_jax.selection.problem import (
    Problem,
    Selection,
    check_budget,
    check_memory,
    solve,
)
from goracs_jax.shapes import GivenArray
from goracs_jax.transport import exact, sinkhorn


def tarot(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Choose the nearest row of every validation point, then every second nearest ...

    Layer k has the rows that are the k-th nearest of some point and in no layer before.
    Whole layers are taken while they fit into n. Of the layer that does not fit, the
    rows with the largest potentials f of the transport D from that layer to the points
    fill what is left, as the authors' code does ("fixed size" of TAROT, arXiv
    2412.00420). These are the rows that are hardest to place: with n below the size of
    the first layer, the choice consists of them.

    Args:
        problem: The distances are read, not the reward.
        budget: n.
        key: Not used.

    Returns:
        The n rows; among equal potentials the lowest row wins.

    Raises:
        InputError: The transport of the last layer does not fit into memory.
        NumericalError: Sinkhorn did not converge.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [1.0], [3.0], [9.0]], np.float32)
    >>> problem = Problem(make_cost(x, np.array([[0.0], [3.5]])))
    >>> tarot(problem, 3, key=jax.random.key(0)).indices.tolist()
    [0, 1, 2]
    """
    n_train, n_valid = problem.cost.shape
    check_budget(n_train, budget)
    started = time.perf_counter()
    cost = without_reward(problem.materialize(problem.cost))
    depth = min(n_train, 2 * -(-budget // n_valid))
    while np.sum((layer := layers(cost, depth)) <= depth) < budget:
        depth = min(n_train, 2 * depth)
    upto = np.cumsum(np.bincount(layer, minlength=depth + 1)[: depth + 1])
    whole = int(np.searchsorted(upto, budget, side="right")) - 1
    rows = np.flatnonzero(layer <= whole)
    if len(rows) < budget:
        last = np.flatnonzero(layer == whole + 1)
        check_memory(len(last), n_valid)
        _, solved = solve(cost, last, sinkhorn)
        hardest = np.argsort(-solved.f, kind="stable")[: budget - len(rows)]
        rows = np.append(rows, last[hardest])
    return selection_of(problem, rows, started)


def layers(cost: Cost, depth: int) -> Int[np.ndarray, " train"]:
    """Compute the least k for which a row is the k-th nearest of a validation point.

    Args:
        cost: C without a reward.
        depth: The largest k that is looked at; a row beyond it has `depth + 1`.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [1.0], [3.0], [9.0]], np.float32)
    >>> layers(make_cost(x, np.array([[0.0], [3.5]])), 2).tolist()
    [1, 2, 1, 3]
    """
    n_train, n_valid = cost.shape
    layer = np.full(n_train, depth + 1)
    # Few points at a time, where the lists of all would not fit into memory.
    step = max(1, cost.tiling.matrix_entries // depth)
    for first in range(0, n_valid, step):
        some = cost if step >= n_valid else _columns(cost, slice(first, first + step))
        lists = np.asarray(nearest_rows(some, depth).rows)
        for k, nearest in enumerate(lists.T, start=1):
            layer[nearest] = np.minimum(layer[nearest], k)
    return layer


def tarot_budget(
    train_embeddings: GivenArray,
    valid_embeddings: GivenArray,
    *,
    key: jax.Array,
    folds: int = 10,
) -> int:
    """Let TAROT choose n: as many neighbours as bring the subset near to held-out rows.

    The validation rows are cut into folds. For each, the k nearest training rows of the
    rows of the fold are taken, k = 1, 2, ..., while the optimal transport distance of
    these to all other validation rows falls. n is the number of rows that any fold has
    taken ("OT-distance minimization" of TAROT, arXiv 2412.00420). Rows with <x, y> <= 0
    are no neighbours. Transport is exact here, and entropic in the authors' code, which
    keeps the rows of the first k at which the distance did not fall.

    Args:
        train_embeddings: x_i, shape [N, dim], in the space of the choice. TAROT's has
            whitened gradients of length 1 (`Whiten`, `unit_rows`).
        valid_embeddings: y_j, shape [M, dim].
        key: Draws the folds.
        folds: Their number, in [2, M].

    Returns:
        n, in [1, N].

    Raises:
        InputError: As `goracs`, or a number of folds out of range.

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> tarot_budget(x, x[[0, 0, 1, 1]], folds=2, key=jax.random.key(0))
    2
    """
    train = as_array(train_embeddings, "training embeddings")
    valid = as_array(valid_embeddings, "validation embeddings")
    cost = make_cost(train, valid)
    n_train, n_valid = cost.shape
    if not 2 <= folds <= n_valid:
        raise InputError(
            f"folds must be in [2, {n_valid}], the number of validation rows, got "
            f"{folds}."
        )
    order = np.asarray(jax.random.permutation(key, n_valid))
    taken = np.zeros(n_train, bool)
    for fold in np.array_split(order, folds):
        taken[_nearest_while_falling(cost, train, valid, np.sort(fold))] = True
    return max(1, int(taken.sum()))


def _nearest_while_falling(
    cost: Cost, train: np.ndarray, valid: np.ndarray, fold: Int[np.ndarray, " fold"]
) -> Int[np.ndarray, " rows"]:
    """Take more neighbours of a fold while they come nearer to the other points."""
    _, n_valid = cost.shape
    others = np.setdiff1d(np.arange(n_valid), fold)
    best, rows = np.inf, np.empty(0, np.int64)
    for layer in _neighbours(_columns(cost, fold), train, valid[fold]):
        found = np.union1d(rows, layer)
        if not len(found):
            break
        check_memory(len(found), len(others))
        value = exact(exact_cost(cost, found)[:, others]).value
        if value >= best:
            break
        best, rows = value, found
    return rows


def _neighbours(
    cost: Cost, train: np.ndarray, valid: np.ndarray
) -> Iterator[Int[np.ndarray, " rows"]]:
    """Iterate over the nearest rows of all points, the second nearest ones, and so on.

    Rows with <x, y> <= 0 are left out.
    """
    n_train, _ = cost.shape
    done, depth = 0, min(n_train, 8)
    while done < n_train:
        lists = np.asarray(nearest_rows(cost, depth).rows)
        for nearest in lists.T[done:]:
            products = np.einsum("jd,jd->j", train[nearest], valid, dtype=np.float64)
            yield nearest[products > 0]
        done, depth = depth, min(n_train, 2 * depth)


def _columns(cost: Cost, which: slice | Int[np.ndarray, " points"]) -> Cost:
    return to_points(cost, jnp.asarray(cost.valid)[which])
