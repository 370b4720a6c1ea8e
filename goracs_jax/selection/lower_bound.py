r"""A certificate: how far a subset can be from the best one.

Relaxing |S| = n to row masses in [0, 1/n] gives a linear programme,

    min <P, C>,   P 1 <= 1/n,   P^T 1 = 1/M,

whose value no subset can beat. Its dual is concave and free of constraints once f is
eliminated: for ANY g in R^M

    B(g) = (1/M) sum_j g_j + (1/n) sum_i min(0, min_j (C_ij - g_j))

is a lower bound of POO (weak duality), however g was found. A good g comes from the
programme over few rows: it is a transport problem with one more column that takes the
mass a row does not use at cost 0. Rows that B(g) shows to be missing are added until
none is (row generation); then B(g) is the value of the whole programme.
"""

import numpy as np
from jaxtyping import Float, Int

from goracs_jax.cost import Cost, block_rows, exact_cost
from goracs_jax.transport import exact

MAX_ROUNDS = 20


def dual_bound(
    cost: Cost, g: Float[np.ndarray, " valid"], budget: int
) -> tuple[float, Float[np.ndarray, " train"]]:
    """B(g), a lower bound of POO for every subset of size n and every g.

    Args:
        cost: C as factors.
        g: Any potential of the validation points, shape [M].
        budget: n.

    Returns:
        B(g) in float64, and the row potentials f_i = min(0, min_j (C_ij - g_j)), shape
        [N]: the more negative, the more the relaxed programme wants row i.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [2.0]], np.float32)
    >>> dual_bound(make_cost(x, x), np.zeros(2), 1)[0]
    0.0
    """
    n_train, _ = cost.shape
    f = np.empty(n_train)
    step = block_rows(cost)
    for first in range(0, n_train, step):
        rows = np.arange(first, min(first + step, n_train))
        f[rows] = np.minimum((exact_cost(cost, rows) - g).min(1), 0)
    return float(g.mean() + f.sum() / budget), f


def lower_bound(
    cost: Cost, rows: Int[np.ndarray, " budget"], *, max_rounds: int = MAX_ROUNDS
) -> tuple[float, Float[np.ndarray, " train"]]:
    """The best lower bound of POO that row generation finds for subsets of this size.

    Args:
        cost: C as factors.
        rows: A subset of size n; the better, the fewer rounds.
        max_rounds: Where to stop; the bound is valid after any number of rounds.

    Returns:
        The bound and the row potentials f that belong to it, shape [N].

    >>> from goracs_jax.cost import make_cost
    >>> x, y = np.array([[0.0], [2.0]]), np.array([[0.0], [1.0], [2.0]])
    >>> round(lower_bound(make_cost(x, y), np.array([1]))[0], 6)
    0.166667
    """
    n_train, n_valid = cost.shape
    budget = len(rows)
    spread = np.linspace(0, n_train - 1, min(n_train, 2 * budget), dtype=np.int64)
    pool = np.union1d(rows, spread)
    best = (-np.inf, np.zeros(n_train))
    for _ in range(max_rounds):
        # All masses times n / |pool|, so that both marginals sum to one.
        share = budget / len(pool)
        unused = np.zeros((len(pool), 1))
        solved = exact(
            np.concatenate([exact_cost(cost, pool), unused], 1),
            np.full(len(pool), 1 / len(pool)),
            np.append(np.full(n_valid, share / n_valid), 1 - share),
        )
        g = solved.g[:-1] - solved.g[-1]
        bound, f = dual_bound(cost, g, budget)
        best = max(best, (bound, f), key=lambda pair: pair[0])
        missing = np.setdiff1d(np.flatnonzero(f < 0), pool)
        if not len(missing):
            break
        most = np.argsort(f[missing], kind="stable")[: max(budget, 64)]
        pool = np.union1d(pool, missing[most])
    return best
