r"""Optimal transport between two discrete measures: exact (POT) and entropic (ott-jax).

Both solvers take a cost matrix and two marginals and return the same `Transport`:
plan P, potentials f and g, the value <P, C>, and how far P was from its marginals.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import ot
from jaxtyping import Float
from scipy.sparse import coo_array

from goracs_jax.errors import InputError
from goracs_jax.shapes import AnyArray

CostMatrix = Float[AnyArray, "n m"]
RowMass = Float[AnyArray, " n"]
ColumnMass = Float[AnyArray, " m"]

# Entropic regularisation as a share of max(C) - min(C), where none is given.
RELATIVE_EPSILON = 1e-3
# "auto" is exact on CPUs: the faster one at every size that benchmarks/transport.py
# measures, by a factor that grows. On accelerators, where nothing is measured, up to so
# many entries of C.
EXACT_ENTRIES = 1 << 25
# Warm-started exact transport: problems with fewer arcs are solved whole; else about
# ARCS arcs a row and column are tried first, and missing ones added so many times.
DENSE_ARCS = 100_000
ARCS = 20
ARC_ROUNDS = 4


class Transport(NamedTuple):
    """A solved problem min_P <P, C>, P 1 = a, P^T 1 = b."""

    value: float
    f: Float[np.ndarray, " n"]
    g: Float[np.ndarray, " m"]
    plan: Float[np.ndarray, "n m"]
    converged: bool
    marginal_error: float


class Annealing(NamedTuple):
    """From `start` times epsilon down to epsilon, by 0.966 an iteration.

    Errors are measured at every tenth iteration, so `iterations` ends with a nine: the
    first at which Sinkhorn may stop.
    """

    start: float
    iterations: int


COLD = Annealing(1000.0, 219)
WARM = Annealing(30.0, 109)  # after the potentials of a similar problem
# Where those lead nowhere, annealing starts anew after so many iterations.
WARM_ITERATIONS = 2_000

Solver = Callable[..., Transport]


def exact(
    cost: CostMatrix,
    a: RowMass | None = None,
    b: ColumnMass | None = None,
    *,
    g: Float[np.ndarray, " m"] | None = None,
) -> Transport:
    """Exact transport by the network simplex of POT, in float64 on the host.

    Args:
        cost: C, shape [n, m].
        a: Mass of each row, shape [n]; uniform when left out.
        b: Mass of each column, shape [m]; uniform when left out.
        g: Column potentials near the optimal ones, from a similar problem. The simplex
            then sees only arcs of small reduced cost, and more where those were not
            enough: sooner where few rows changed, with the same optimum.

    Returns:
        The optimal plan, with at most n + m - 1 positive entries, and optimal
        potentials: f_i + g_j <= C_ij with equality where P_ij > 0.

    Raises:
        InputError: The simplex stopped before the optimum.

    >>> exact(np.array([[0.0, 1.0], [1.0, 0.0]])).value
    0.0
    """
    cost = np.asarray(cost, np.float64)
    a, b = _marginals(cost, a, b)
    # POT takes strongly negative costs for infeasible; a shift changes no plan.
    shift = min(cost.min(), -1.0) + 1.0
    shifted = cost - shift if shift else cost
    plan, log = (None if g is None else _few_arcs(shifted, a, b, g)) or _simplex(
        shifted, a, b
    )
    if log["result_code"] != 1:
        raise InputError(f"exact transport found no optimum: {log['warning']}")
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    value = float(np.vdot(plan, cost))
    return Transport(value, log["u"] + shift, log["v"], plan, True, float(error))


def sinkhorn(
    cost: CostMatrix,
    a: RowMass | None = None,
    b: ColumnMass | None = None,
    *,
    g: Float[np.ndarray, " m"] | None = None,
    epsilon: float | None = None,
    max_iterations: int = 20_000,
    threshold: float = 1e-3,
) -> Transport:
    """Entropic transport by Sinkhorn iterations of ott-jax, jitted, epsilon annealed.

    The plan is rounded onto its marginals (Altschuler et al., NeurIPS 2017, Alg. 2),
    so that <P, C> is an upper bound of the exact value. Once converged it exceeds it
    by at most epsilon log(min(n, m)) + 2 marginal_error (max C - min C).

    Args:
        cost: C, shape [n, m].
        a: Mass of each row, shape [n]; uniform when left out.
        b: Mass of each column, shape [m]; uniform when left out.
        g: Column potentials of a similar problem; annealing starts from them, thirty
            times nearer to epsilon, and anew where that does not converge: sooner or
            later than a cold start, by a factor of two to four either way.
        epsilon: Regularisation in the units of C; RELATIVE_EPSILON times the range of C
            when left out.
        max_iterations: Where to give up.
        threshold: Largest L1 error of both marginals, as a share of the mass.

    Returns:
        The rounded plan; `marginal_error` is the error before rounding.

    >>> round(sinkhorn(np.array([[0.0, 1.0], [1.0, 0.0]])).value, 3)
    0.0
    """
    cost = np.asarray(cost, np.float64)
    a, b = _marginals(cost, a, b)
    # Centred, so that float32 spends its digits on differences of costs.
    shift = cost.mean()
    spread = float(np.ptp(cost))
    if epsilon is None:
        # Equal costs leave nothing to regularise: any epsilon will do.
        epsilon = RELATIVE_EPSILON * spread or 1.0
    # Entries of C / epsilon near 1 / eps(float32) have no digits left after the point.
    if epsilon <= 1e-6 * spread:
        raise InputError(
            f"epsilon {epsilon:.1e} is too small for float32 where costs differ by "
            f"{spread:.1e}: give a larger epsilon or use the exact solver."
        )
    centred = jnp.asarray(cost - shift, jnp.float32)
    marginals = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    warm = g is not None
    annealing = WARM if warm else COLD
    limit = min(max_iterations, WARM_ITERATIONS) if warm else max_iterations
    # The first half-step computes g from f: the c-transform of the g that was given.
    f = jnp.zeros(len(a)) if g is None else (centred - jnp.float32(g)).min(1)
    out = _sinkhorn(centred, *marginals, f, epsilon, threshold, annealing, limit)
    plan, f, g, error = (np.asarray(x, np.float64) for x in out)
    plan = _round(plan, a, b)
    value = float((plan * cost).sum())
    converged = bool(error <= threshold)
    if not converged and warm:
        # Potentials of another problem can be a slow place to start from.
        return sinkhorn(
            cost,
            a,
            b,
            epsilon=epsilon,
            max_iterations=max_iterations,
            threshold=threshold,
        )
    return Transport(value, f + shift, g, plan, converged, float(error))


SOLVERS: dict[str, Solver] = {"exact": exact, "sinkhorn": sinkhorn}


def find_solver(name: str, n: int, m: int) -> Solver:
    """The solver of a name; "auto" is exact on CPUs and unless C is very large.

    Args:
        name: "auto", "exact" or "sinkhorn".
        n: Rows of the cost matrix.
        m: Its columns.

    Raises:
        InputError: Another name.

    >>> find_solver("auto", 1000, 5000) is exact
    True
    """
    if name == "auto":
        on_cpu = jax.default_backend() == "cpu"
        return exact if on_cpu or n * m <= EXACT_ENTRIES else sinkhorn
    if name not in SOLVERS:
        names = ", ".join(("auto", *SOLVERS))
        raise InputError(f"solver must be one of {names}, got {name!r}.")
    return SOLVERS[name]


def _simplex(cost, a, b) -> tuple[Any, dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller reads its outcome from the log
        return ot.emd(a, b, cost, log=True, numItermax=10**9)


def _few_arcs(cost, a, b, g) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The optimum over arcs of small reduced cost, priced out over all arcs.

    None where the arcs kept are not enough even after some rounds.
    """
    n, m = cost.shape
    if n * m <= DENSE_ARCS:
        return None
    reduced = cost - g
    reduced -= reduced.min(1)[:, None]
    sample = reduced[:, :: max(1, m // 100)]
    share = min(1, ARCS * (1 / n + 1 / m))
    arcs = reduced <= np.quantile(sample, share)
    arcs.flat[_corner_arcs(a, b)] = True
    for _ in range(ARC_ROUNDS):
        kept = np.flatnonzero(arcs)
        sparse = coo_array((cost.ravel()[kept], divmod(kept, m)), shape=(n, m))
        plan, log = _simplex(sparse, a, b)
        if log["result_code"] != 1:
            return None
        # Potentials that are feasible for every arc prove the plan optimal.
        np.subtract(cost, log["u"][:, None], out=reduced)
        reduced -= log["v"]
        missing = reduced < -1e-10 * max(1.0, cost.max())
        if not missing.any():
            return plan.toarray(), log
        arcs |= missing
    return None


def _corner_arcs(a, b) -> np.ndarray:
    """Arcs of the north-west corner plan: with them a plan always exists."""
    ends = np.cumsum(a), np.cumsum(b)
    cuts = np.union1d(*ends)
    middles = (cuts + np.append(0.0, cuts[:-1])) / 2
    i, j = (np.minimum(np.searchsorted(e, middles), len(e) - 1) for e in ends)
    return np.unique(i * len(b) + j)


def _marginals(cost, a, b) -> tuple[np.ndarray, np.ndarray]:
    n, m = cost.shape
    uniform = lambda size: np.full(size, 1 / size)
    a = uniform(n) if a is None else np.asarray(a, np.float64)
    b = uniform(m) if b is None else np.asarray(b, np.float64)
    return a, b


@partial(jax.jit, static_argnames=("annealing", "max_iterations"))
def _sinkhorn(cost, a, b, f, epsilon, threshold, annealing, max_iterations):
    # ott-jax takes two seconds to import: only where it is used.
    from ott.geometry import epsilon_scheduler, geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn as ott_sinkhorn

    schedule = epsilon_scheduler.Epsilon(epsilon, init=annealing.start, decay=0.966)
    geom = geometry.Geometry(cost_matrix=cost, epsilon=schedule)
    # ott measures one marginal; half leaves room for the rounding of the other.
    solver = ott_sinkhorn.Sinkhorn(
        threshold=threshold / 2,
        min_iterations=annealing.iterations,
        max_iterations=max_iterations,
    )
    with jax.default_matmul_precision("highest"):
        start = f, jnp.zeros_like(b)
        out = solver(linear_problem.LinearProblem(geom, a=a, b=b), init=start)
    error = jnp.abs(out.matrix.sum(1) - a).sum() + jnp.abs(out.matrix.sum(0) - b).sum()
    return out.matrix, out.f, out.g, error


def _round(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    plan = plan * np.minimum(a / np.maximum(plan.sum(1), 1e-300), 1)[:, None]
    plan = plan * np.minimum(b / np.maximum(plan.sum(0), 1e-300), 1)[None, :]
    left_a, left_b = a - plan.sum(1), b - plan.sum(0)
    total = left_a.sum()
    return plan if total <= 0 else plan + np.outer(left_a, left_b) / total
