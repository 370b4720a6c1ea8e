"""TSDS: nearest neighbours whose near duplicates share their mass."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from goracs_jax.cost import (
    Block,
    Cost,
    centred_rows,
    fold_rows,
    largest_distance,
    nearest_distances,
    nearest_rows,
    to_points,
    without_reward,
)
from goracs_jax.errors import InputError
from goracs_jax.selection.baselines.random import selection_of
from goracs_jax.selection.method import Tsds
from goracs_jax.selection.problem import Problem, Selection, check_budget
from goracs_jax.shapes import AnyArray


def tsds(problem: Problem, budget: int, *, key: jax.Array, settings: Tsds) -> Selection:
    """Draw n rows from those near to the validation points, few of them much alike.

    The masses of rows are those of the transport P with P^T 1 = 1 / M that minimises

        alpha / scale <P, D / max D> + (1 - alpha) M max_ij rho_i P_ij,

    where rho_i = sum_k max(0, 1 - (||x_i - x_k|| / (bandwidth max D))^2) counts the
    near duplicates of row i and the row itself (KNN-KDE of TSDS, NeurIPS 2024). Rows
    are drawn without repetition in proportion to their masses; where fewer have any,
    the nearest of the others follow.

    Args:
        problem: The distances are read, not the reward.
        budget: n.
        key: Draws the rows.
        settings: Weights and lengths.

    Returns:
        The n rows.

    Raises:
        InputError: A setting is out of range.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [1.0], [5.0], [9.0]], np.float32)
    >>> problem = Problem(make_cost(x, np.array([[0.0], [1.0]])))
    >>> method, key = Tsds(alpha=1.0), jax.random.key(0)
    >>> tsds(problem, 2, key=key, settings=method).indices.tolist()
    [0, 1]
    """
    n_train, _ = problem.cost.shape
    check_budget(n_train, budget)
    s = settings
    if not (0 < s.alpha <= 1 and s.scale > 0 and s.bandwidth > 0):
        raise InputError(
            "alpha must be in (0, 1], scale and bandwidth above 0, got "
            f"{s.alpha}, {s.scale} and {s.bandwidth}."
        )
    started = time.perf_counter()
    mass = masses(without_reward(problem.materialize(problem.cost)), settings)
    with np.errstate(divide="ignore"):
        # The n largest of log p + Gumbel are n draws without repetition.
        drawn = np.log(mass) + np.asarray(jax.random.gumbel(key, (n_train,)))
    near = np.asarray(nearest_distances(problem.cost))
    return selection_of(problem, np.lexsort((near, -drawn))[:budget], started)


def masses(cost: Cost, settings: Tsds, length: int = 32) -> Float[np.ndarray, " train"]:
    """Compute the mass of every row; the masses add up to 1.

    Args:
        cost: C without a reward.
        settings: Weights and lengths.
        length: Neighbours listed of each validation point at first; where they do not
            suffice, four times as many.

    Raises:
        InputError: The lists do not fit into memory.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [1.0], [1.0], [9.0]], np.float32)
    >>> even = Tsds(scale=1e9, bandwidth=0.1)
    >>> masses(make_cost(x, np.array([[0.9]])), even).round(2).tolist()
    [0.33, 0.17, 0.17, 0.33]
    """
    n_train, n_valid = cost.shape
    unit = largest_distance(cost)
    limit = (1 - settings.alpha) / settings.alpha * settings.scale * unit * n_valid
    while True:
        length = min(length, n_train)
        if length * n_valid > cost.tiling.matrix_entries:
            raise InputError(
                f"tsds spreads the mass of {n_valid} validation rows over more than "
                f"{length // 4} neighbours each, which do not fit into memory: give a "
                "larger alpha."
            )
        near = nearest_rows(cost, length)
        lists, distance = np.asarray(near.rows), np.asarray(near.cost, np.float64)
        listed, place = np.unique(lists, return_inverse=True)
        density = densities(cost, listed, settings.bandwidth * unit)
        filled = np.cumsum(1 / density[place.reshape(lists.shape)], axis=1)
        whole = _whole(distance, filled, limit, complete=length == n_train)
        if whole is not None:
            break
        length *= 4
    # A row takes at most 1 / (M whole rho), the nearest first, up to 1 / M in all.
    upto = np.minimum(filled / whole, 1) / n_valid
    shares = np.diff(upto, axis=1, prepend=0)
    return np.bincount(lists.ravel(), shares.ravel(), minlength=n_train)


def _whole(
    distance: Float[np.ndarray, "valid length"],
    filled: Float[np.ndarray, "valid length"],
    limit: float,
    complete: bool,
) -> float | None:
    """Find how many rows of density 1 a validation point shares its mass among.

    Sharing among s rows costs, summed over the points, sum_k d_k / rho_k / s and so on:
    its derivative in 1 / s jumps by filled_k (d_{k+1} - d_k) where s passes filled_k.
    The best s is the first at which the sum of these jumps reaches the limit.

    Args:
        distance: d_k of each point's nearest rows.
        filled: sum of 1 / rho over the rows up to k.
        limit: What diversity is worth.
        complete: Whether the lists have all rows.

    Returns:
        s, or None where the lists end before it.
    """
    at, last = filled[:, :-1], filled[:, -1].min() if complete else np.inf
    jumps = at * np.diff(distance, axis=1)
    order = np.argsort(at, axis=None, kind="stable")
    reached = np.flatnonzero(np.cumsum(jumps.ravel()[order]) >= limit)
    best = at.ravel()[order[reached[0]]] if len(reached) else np.inf
    known = np.inf if complete else (at[:, -1].min() if at.size else 0.0)
    best = min(best, last)
    return float(best) if best <= known else None


def densities(
    cost: Cost, rows: Int[np.ndarray, " rows"], bandwidth: float
) -> Float[np.ndarray, " rows"]:
    """Compute rho_i = sum_k max(0, 1 - (||x_i - x_k|| / bandwidth)^2), in units of C.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [1.0], [1.0]], np.float32)
    >>> densities(make_cost(x, x), np.array([0, 2]), 0.5).tolist()
    [1.0, 2.0]
    """
    # Lengths are rounded up to powers of two, so that few programs are compiled.
    padded = np.resize(rows, 1 << (len(rows) - 1).bit_length())
    counts = _densities(cost, padded, jnp.float32(bandwidth))
    return np.asarray(counts, np.float64)[: len(rows)]


@jax.jit
def _densities(
    cost: Cost, rows: Int[AnyArray, " rows"], bandwidth: Float[jax.Array, ""]
) -> Float[jax.Array, " rows"]:
    def add(total: jax.Array, block: Block) -> jax.Array:
        kernel = jnp.maximum(1 - (block.cost / bandwidth) ** 2, 0)
        return total + (kernel * block.fresh[:, None]).sum(0)

    among = to_points(cost, centred_rows(cost, rows))
    return fold_rows(among, jnp.zeros(len(rows)), add)
