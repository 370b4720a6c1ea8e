r"""Exact optimal transport by the network simplex of POT, in float64 on the host."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import coo_array

from goracs_jax.errors import NumericalError
from goracs_jax.transport.types import (
    ColumnMass,
    CostMatrix,
    RowMass,
    Transport,
    marginals,
)

# A warm start first tries about ARCS arcs per row and column, and then up to ARC_ROUNDS
# times adds as many again of those that were missing most. It does not pay below
# DENSE_ARCS arcs in all, nor where more than POOR of all arcs are missing.
DENSE_ARCS = 100_000
ARCS = 3
ARC_ROUNDS = 10
POOR = 0.1


def exact(
    cost: CostMatrix,
    a: RowMass | None = None,
    b: ColumnMass | None = None,
    *,
    g: Float[np.ndarray, " m"] | None = None,
    dense_arcs: int = DENSE_ARCS,
    max_iterations: int = 10**9,
) -> Transport:
    """Solve a transport problem exactly.

    Args:
        cost: C, shape [n, m].
        a: Mass of each row, shape [n]; uniform if None.
        b: Mass of each column, shape [m]; uniform if None.
        g: Column potentials near the optimal ones, from a similar problem. The simplex
            then sees only arcs of small reduced cost, and more of them where those were
            not enough. This is faster where few rows changed; the optimum is the same.
        dense_arcs: Problems with at most this many entries are solved without `g`.
        max_iterations: The most pivots of the simplex.

    Returns:
        The optimal plan, with at most n + m - 1 positive entries, and optimal
        potentials: f_i + g_j <= C_ij with equality where P_ij > 0.

    Raises:
        NumericalError: The simplex stopped before the optimum.

    >>> exact(np.array([[0.0, 1.0], [1.0, 0.0]])).value
    0.0
    """
    cost = np.asarray(cost, np.float64)
    a, b = marginals(cost, a, b)
    # POT takes strongly negative costs for infeasible; a shift changes no plan.
    shift = min(cost.min(), -1.0) + 1.0
    shifted = cost - shift if shift else cost
    warm = g is not None and cost.size > dense_arcs
    solved = _few_arcs(shifted, a, b, g, max_iterations) if warm else None
    plan, log = solved or _simplex(shifted, a, b, max_iterations)
    if log["result_code"] != 1:
        reason = " ".join(str(log["warning"]).split()).rstrip(".")
        raise NumericalError(
            f"the network simplex found no optimal transport plan ({reason}): check "
            "that costs are finite and that both marginals have the same sum, or use "
            "the solver sinkhorn."
        )
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    value = float(np.vdot(plan, cost))
    return Transport(value, log["u"] + shift, log["v"], plan, True, float(error))


def _simplex(cost, a, b, max_iterations: int) -> tuple[Any, dict[str, Any]]:
    # POT takes a second to import, so only its users wait.
    import ot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller reads the outcome from the log
        return ot.emd(a, b, cost, log=True, numItermax=max_iterations)


def _few_arcs(
    cost, a, b, g, max_iterations: int
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Find the optimum over arcs of small reduced cost, proved optimal over all arcs.

    The result is None if g is too far from optimal, or if the arcs are still not enough
    after some rounds.
    """
    n, m = cost.shape
    few = ARCS * (n + m)
    reduced = cost - g
    reduced -= reduced.min(1)[:, None]
    sample = reduced[:, :: max(1, m // 100)]
    arcs = reduced <= np.quantile(sample, min(1, few / cost.size))
    arcs.flat[_corner_arcs(a, b)] = True
    for _ in range(ARC_ROUNDS):
        kept = np.flatnonzero(arcs)
        sparse = coo_array((cost.ravel()[kept], divmod(kept, m)), shape=(n, m))
        plan, log = _simplex(sparse, a, b, max_iterations)
        if log["result_code"] != 1:
            return None
        # Potentials that are feasible for every arc prove the plan optimal.
        np.subtract(cost, log["u"][:, None], out=reduced)
        reduced -= log["v"]
        missing = reduced[reduced < -1e-10 * max(1.0, cost.max())]
        if not len(missing):
            return plan.toarray(), log
        if len(missing) > POOR * cost.size:
            return None
        # All at once would be many more than the optimum needs.
        kth = min(few, len(missing)) - 1
        arcs |= reduced <= np.partition(missing, kth)[kth]
    return None


def _corner_arcs(a, b) -> np.ndarray:
    """List the arcs of the north-west corner plan: with them a plan always exists."""
    ends = np.cumsum(a), np.cumsum(b)
    cuts = np.union1d(*ends)
    middles = (cuts + np.append(0.0, cuts[:-1])) / 2
    i, j = (np.minimum(np.searchsorted(e, middles), len(e) - 1) for e in ends)
    return np.unique(i * len(b) + j)
