r"""A lower bound of POO: it certifies how far a subset can be from the best one.

Relaxing |S| = n to row masses in [0, 1/n] gives a linear programme,

    min <P, C>,   P 1 <= 1/n,   P^T 1 = 1/M,

whose value no subset can beat. Its dual is concave and free of constraints once f is
eliminated: for ANY g in R^M

    B(g) = (1/M) sum_j g_j + (1/n) sum_i min(0, min_j (C_ij - g_j))

is a lower bound of POO (weak duality), however g was found. A good g comes from the
programme over few rows: it is a transport problem with one more column that takes the
mass a row does not use at cost 0. Rows that B(g) shows to be missing are added until
none is (row generation); then B(g) is the value of the whole programme. The value over
few rows is at least that of the whole one, so it tells how much B(g) can still rise.
The search for g runs in float32; what is returned is B(g) of the best one in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from goracs_jax.cost import Block, Cost, block_rows, exact_cost, map_rows, nearest_rows
from goracs_jax.selection.method import LowerBound
from goracs_jax.transport import exact


def dual_bound(
    cost: Cost, g: Float[np.ndarray, " valid"], budget: int
) -> tuple[float, Float[np.ndarray, " train"]]:
    """Return B(g), a lower bound of POO for every subset of size n, whatever g is.

    Args:
        cost: C as factors.
        g: Any potential of the validation points, shape [M].
        budget: n.

    Returns:
        B(g) in float64, and the row potentials f_i = min(0, min_j (C_ij - g_j)), shape
        [N]: the more negative f_i is, the more the relaxed programme wants row i.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [2.0]], np.float32)
    >>> dual_bound(make_cost(x, x), np.zeros(2), 1)[0]
    0.0
    """
    f = np.zeros(cost.shape[0])
    # Only a row that may lie below zero is worth float64.
    left = np.flatnonzero(
        np.asarray(slack_below(cost, jnp.asarray(g, jnp.float32))) < 0
    )
    step = block_rows(cost)
    for first in range(0, len(left), step):
        # The last block starts early to keep its shape.
        rows = left[max(0, min(first, len(left) - step)) :][:step]
        f[rows] = np.minimum((exact_cost(cost, rows) - g).min(1), 0)
    return float(g.mean() + f.sum() / budget), f


@jax.jit
def slack_below(
    cost: Cost, g: Float[jax.Array, " valid"]
) -> Float[jax.Array, " train"]:
    r"""Bound min_j (C_ij - g_j) of every row from below, by one pass in float32.

    With u = 2^-24 and any order of summation, |x|^2 + |y|^2 - 2 x.y is off by at most
    (dim + 2) u (|x| + |y|)^2 to first order (Higham, Accuracy and Stability of
    Numerical Algorithms, 2002, Sec. 3.1). Centring x moves it by 2 u (|x| + |y|)^2, and
    the root, its square and the two divisions by 6 u (|x| + |y|)^2. Twice the sum,

        e_i = 2 (dim + 10) u (|x_i| + max_j |y_j|)^2,

    also holds the terms of second order, and D_ij >= sqrt(max(D32_ij^2 - e_i, 0)): the
    root is monotone, so nothing is lost where D is near zero. What follows are numbers
    of size D / max(D), lambda and g, each rounded a few times.

    Args:
        cost: C as factors.
        g: Any potential of the validation points, shape [M].

    Returns:
        One number per row, shape [N]. The floor of the work is a pass over C: 2 N M dim
        FLOPs.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [4.0]], np.float32)
    >>> slack_below(make_cost(x, x), jnp.array([0.5, 1.0])).round(3).tolist()
    [-0.5, -1.0]
    """
    unit = jnp.finfo(jnp.float32).eps / 2
    scale, (_, dim) = cost.distance_scale, cost.valid.shape
    farthest = jnp.linalg.norm(jnp.asarray(cost.valid), axis=1).max()
    reward = jnp.asarray(cost.reward)
    rounding = 8 * unit * (1 + jnp.abs(reward).max() + jnp.abs(g).max())

    def least(block: Block) -> jax.Array:
        reach = (jnp.linalg.norm(block.points, axis=1) + farthest) / scale
        squared = block.cost**2 - (2 * (dim + 10) * unit * reach**2)[:, None]
        return (jnp.sqrt(jnp.maximum(squared, 0)) - g).min(1)

    no_reward = cost._replace(reward=jnp.zeros_like(reward))
    return map_rows(no_reward, least) - reward - rounding


def lower_bound(
    cost: Cost,
    rows: Int[np.ndarray, " budget"],
    settings: LowerBound | None = None,
) -> tuple[float, Float[np.ndarray, " train"]]:
    """Bound the POO of all subsets of this size from below, by row generation.

    Args:
        cost: C as factors.
        rows: A subset of size n; the better it is, the fewer rounds it takes.
        settings: When the rounds end; the defaults of `LowerBound` when left out.

    Returns:
        The bound and the row potentials f that belong to it, shape [N].

    >>> from goracs_jax.cost import make_cost
    >>> x, y = np.array([[0.0], [2.0]]), np.array([[0.0], [1.0], [2.0]])
    >>> round(lower_bound(make_cost(x, y), np.array([1]))[0], 6)
    0.166667
    """
    settings = settings or LowerBound()
    n_train, n_valid = cost.shape
    budget = len(rows)
    affordable = settings.passed_entries // (n_train * n_valid)
    rounds = min(settings.max_rounds, max(settings.fewest_rounds, affordable))
    most = settings.pool_entries // n_valid
    fits = lambda size: max(64, min(2 * budget, most - size))
    nearest = nearest_rows(cost, 1)
    near, listed = np.unique(nearest.rows, return_counts=True)
    wanted = near[np.argsort(-listed, kind="stable")[: fits(budget)]]
    pool, solution = np.union1d(rows, wanted), None
    # With g_j = min_i C_ij no f is below zero, and B(g) is the mean of g.
    g = np.asarray(nearest.cost[:, 0], np.float64)
    best = (g.mean(), g)
    for _ in range(rounds):
        # All masses times n / |pool|, so that both marginals sum to one.
        share = budget / len(pool)
        unused = np.zeros((len(pool), 1))
        solved = exact(
            np.concatenate([exact_cost(cost, pool), unused], 1),
            np.full(len(pool), 1 / len(pool)),
            np.append(np.full(n_valid, share / n_valid), 1 - share),
            g=solution,
        )
        solution = solved.g
        g = solution[:-1] - solution[-1]
        f = np.minimum(slack(cost, jnp.asarray(g, jnp.float32)), 0)
        best = max(best, (g.mean() + f.sum() / budget, g), key=lambda pair: pair[0])
        missing = np.setdiff1d(np.flatnonzero(f < 0), pool)
        if not len(missing) or solved.value / share - best[0] <= settings.tolerance:
            break
        # Without the rows that it leaves unused the programme keeps its value.
        pool = pool[solved.plan[:, :-1].any(1)]
        wanted = missing[np.argsort(f[missing], kind="stable")[: fits(len(pool))]]
        pool = np.union1d(pool, wanted)
    return dual_bound(cost, best[1], budget)


@jax.jit
def slack(cost: Cost, g: Float[jax.Array, " valid"]) -> Float[jax.Array, " train"]:
    """Return min_j (C_ij - g_j) of every row, in float32.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [4.0]], np.float32)
    >>> slack(make_cost(x, x), jnp.array([0.5, 1.0])).tolist()
    [-0.5, -1.0]
    """
    return map_rows(cost, lambda block: (block.cost - g).min(1))
