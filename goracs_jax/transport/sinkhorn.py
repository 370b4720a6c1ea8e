r"""Entropic optimal transport by the Sinkhorn iterations of ott-jax."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from goracs_jax.errors import InputError
from goracs_jax.transport.types import (
    ColumnMass,
    CostMatrix,
    RowMass,
    Transport,
    marginals,
)

TINY = 1e-30  # in place of a mass of zero that is divided by
# Regularisation as a share of max(C) - min(C), where none is given.
RELATIVE_EPSILON = 1e-3


class Schedule(NamedTuple):
    """Epsilon falls from `start` times its value, by a factor of 0.966 an iteration.

    ott-jax measures errors at every tenth iteration, so `iterations`, the first at
    which Sinkhorn may stop, ends with a nine.
    """

    start: float
    iterations: int


COLD = Schedule(1000.0, 219)
WARM = Schedule(30.0, 109)  # after the potentials of a similar problem
# Where a warm start has not converged after so many iterations, a cold one follows.
WARM_ITERATIONS = 2_000


def sinkhorn(
    cost: CostMatrix,
    a: RowMass | None = None,
    b: ColumnMass | None = None,
    *,
    g: Float[np.ndarray, " m"] | None = None,
    epsilon: float | None = None,
    max_iterations: int = 20_000,
    warm_iterations: int = WARM_ITERATIONS,
    threshold: float = 1e-3,
) -> Transport:
    """Solve a transport problem with entropic regularisation, epsilon falling.

    The plan is rounded onto its marginals (Altschuler et al., NeurIPS 2017, Alg. 2), as
    far as float32 can be, so that <P, C> is an upper bound of the exact value. Once
    converged it exceeds it by at most
    epsilon log(min(n, m)) + 2 marginal_error (max C - min C).

    Args:
        cost: C, shape [n, m]; an array that is on a device stays there.
        a: Mass of each row, shape [n]; uniform if None.
        b: Mass of each column, shape [m]; uniform if None.
        g: Column potentials of a similar problem, to start from. Epsilon then starts
            thirty times nearer to its value. A warm start takes between a quarter and
            four times the iterations of a cold one.
        epsilon: Regularisation in the units of C; RELATIVE_EPSILON times the range of C
            if None.
        max_iterations: The most iterations from one start.
        warm_iterations: The most iterations from `g`, after which Sinkhorn starts cold.
        threshold: Largest L1 error of both marginals, as a share of the mass.

    Returns:
        The rounded plan. `marginal_error` is the error before rounding; `converged`
        says whether it is within the threshold.

    Raises:
        InputError: Epsilon is too small for float32.

    >>> round(sinkhorn(np.array([[0.0, 1.0], [1.0, 0.0]])).value, 3)
    0.0
    """
    if not isinstance(cost, jax.Array):
        cost = np.asarray(cost, np.float64)
    a, b = marginals(cost, a, b)
    # Centred, so that float32 spends its digits on differences of costs.
    shift = float(cost.mean())
    spread = float(cost.max() - cost.min())
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
    masses = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    schedule, limit, start = COLD, max_iterations, jnp.zeros(len(a))
    if g is not None:
        schedule, limit = WARM, min(max_iterations, warm_iterations)
        # The first half-step computes g from f: the c-transform of the g that is given.
        start = (centred - jnp.float32(g)).min(1)
    out = _iterate(centred, *masses, start, epsilon, threshold, schedule, limit)
    plan, f, column, error = (np.asarray(x, np.float64) for x in out)
    # The mass of a plan in float32 is not 1 to the last digit: what all costs have in
    # common is left out of the sum.
    value = shift + float(np.vdot(plan, np.asarray(cost, np.float64) - shift))
    converged = bool(error <= threshold)
    if not converged and g is not None:
        # Potentials of another problem can be a slow place to start from.
        return sinkhorn(
            cost,
            a,
            b,
            epsilon=epsilon,
            max_iterations=max_iterations,
            threshold=threshold,
        )
    return Transport(value, f + shift, column, plan, converged, float(error))


@partial(jax.jit, static_argnames=("schedule", "max_iterations"))
def _iterate(cost, a, b, f, epsilon, threshold, schedule, max_iterations):
    # ott-jax takes two seconds to import, so only its users wait.
    from ott.geometry import epsilon_scheduler, geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn as ott_sinkhorn

    falling = epsilon_scheduler.Epsilon(epsilon, init=schedule.start, decay=0.966)
    geom = geometry.Geometry(cost_matrix=cost, epsilon=falling)
    # ott measures one marginal; half leaves room for the rounding of the other.
    solver = ott_sinkhorn.Sinkhorn(
        threshold=threshold / 2,
        min_iterations=schedule.iterations,
        max_iterations=max_iterations,
    )
    with jax.default_matmul_precision("highest"):
        start = f, jnp.zeros_like(b)
        out = solver(linear_problem.LinearProblem(geom, a=a, b=b), init=start)
    error = jnp.abs(out.matrix.sum(1) - a).sum() + jnp.abs(out.matrix.sum(0) - b).sum()
    return _round(out.matrix, a, b), out.f, out.g, error


def _round(
    plan: Float[jax.Array, "n m"], a: Float[jax.Array, " n"], b: Float[jax.Array, " m"]
) -> Float[jax.Array, "n m"]:
    """Scale a plan down to its marginals, and add what is missing as an outer product.

    This is Algorithm 2 of Altschuler et al., NeurIPS 2017.
    """
    plan = plan * jnp.minimum(a / jnp.maximum(plan.sum(1), TINY), 1)[:, None]
    plan = plan * jnp.minimum(b / jnp.maximum(plan.sum(0), TINY), 1)
    # Where nothing is missing, what rounding leaves may be negative.
    left_a, left_b = (jnp.maximum(x, 0) for x in (a - plan.sum(1), b - plan.sum(0)))
    return plan + jnp.outer(left_a, left_b) / jnp.maximum(left_a.sum(), TINY)
