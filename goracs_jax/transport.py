r"""Optimal transport between two discrete measures: exact (POT) and entropic (ott-jax).

Both solvers take a cost matrix and two marginals and return the same `Transport`:
plan P, potentials f and g, the value <P, C>, and how far P was from its marginals.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import ot
from jaxtyping import Float

from goracs_jax.errors import InputError
from goracs_jax.shapes import AnyArray

CostMatrix = Float[AnyArray, "n m"]
RowMass = Float[AnyArray, " n"]
ColumnMass = Float[AnyArray, " m"]

# Entropic regularisation as a share of max(C) - min(C), where none is given.
RELATIVE_EPSILON = 1e-3


class Transport(NamedTuple):
    """A solved problem min_P <P, C>, P 1 = a, P^T 1 = b."""

    value: float
    f: Float[np.ndarray, " n"]
    g: Float[np.ndarray, " m"]
    plan: Float[np.ndarray, "n m"]
    converged: bool
    marginal_error: float


Solver = Callable[..., Transport]


def exact(
    cost: CostMatrix, a: RowMass | None = None, b: ColumnMass | None = None
) -> Transport:
    """Exact transport by the network simplex of POT, in float64 on the host.

    Args:
        cost: C, shape [n, m].
        a: Mass of each row, shape [n]; uniform when left out.
        b: Mass of each column, shape [m]; uniform when left out.

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
    shift = cost.min()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its outcome is read from the log below
        plan, log = ot.emd(a, b, cost - shift, log=True, numItermax=10**9)
    if log["result_code"] != 1:
        raise InputError(f"exact transport found no optimum: {log['warning']}")
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    value = float((plan * cost).sum())
    return Transport(value, log["u"] + shift, log["v"], plan, True, float(error))


def sinkhorn(
    cost: CostMatrix,
    a: RowMass | None = None,
    b: ColumnMass | None = None,
    *,
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
    out = _sinkhorn(centred, *marginals, epsilon, max_iterations, threshold)
    plan, f, g, error = (np.asarray(x, np.float64) for x in out)
    plan = _round(plan, a, b)
    value = float((plan * cost).sum())
    converged = bool(error <= threshold)
    return Transport(value, f + shift, g, plan, converged, float(error))


SOLVERS: dict[str, Solver] = {"exact": exact, "sinkhorn": sinkhorn}


def _marginals(cost, a, b) -> tuple[np.ndarray, np.ndarray]:
    n, m = cost.shape
    uniform = lambda size: np.full(size, 1 / size)
    a = uniform(n) if a is None else np.asarray(a, np.float64)
    b = uniform(m) if b is None else np.asarray(b, np.float64)
    return a, b


@partial(jax.jit, static_argnames="max_iterations")
def _sinkhorn(cost, a, b, epsilon, max_iterations, threshold):
    # ott-jax takes two seconds to import: only where it is used.
    from ott.geometry import epsilon_scheduler, geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn as ott_sinkhorn

    # Annealing starts at 1000 epsilon and reaches the target after some 200 iterations;
    # errors are measured at every tenth, so the 219th is the first to end at.
    schedule = epsilon_scheduler.Epsilon(epsilon, init=1000.0, decay=0.966)
    geom = geometry.Geometry(cost_matrix=cost, epsilon=schedule)
    # ott measures one marginal; half leaves room for the rounding of the other.
    solver = ott_sinkhorn.Sinkhorn(
        threshold=threshold / 2, min_iterations=219, max_iterations=max_iterations
    )
    with jax.default_matmul_precision("highest"):
        out = solver(linear_problem.LinearProblem(geom, a=a, b=b))
    error = jnp.abs(out.matrix.sum(1) - a).sum() + jnp.abs(out.matrix.sum(0) - b).sum()
    return out.matrix, out.f, out.g, error


def _round(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    plan = plan * np.minimum(a / np.maximum(plan.sum(1), 1e-300), 1)[:, None]
    plan = plan * np.minimum(b / np.maximum(plan.sum(0), 1e-300), 1)[None, :]
    left_a, left_b = a - plan.sum(1), b - plan.sum(0)
    total = left_a.sum()
    return plan if total <= 0 else plan + np.outer(left_a, left_b) / total
