r"""ITRA as published: a greedy start, then one swap at a time (KDD 2025, Alg. 1).

The duals u of OT_C(U_S, U_V) score what every training row is worth to the subset,
without another transport:

    f_ij = min_{k in S, k != i} (C_kj - u_k)
    t_i  = R-th largest of C_ij - f_ij over j,  R = ceil(M / n)
    F_i  = (1/M) sum_j min(C_ij - t_i - f_ij, 0) + t_i / n          (small: valuable)

The worst rows inside and the best outside are paired, and the first pair that lowers
POO is swapped. Here a batch of Sinkhorn problems first rules pairs out, so that exact
transport is spent only on promising ones.

The R-th largest is the published choice. The bound that F_i comes from is concave in t
and greatest at the R-th smallest, with which the swaps end lower on random instances.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from goracs_jax.cost import Block, Cost, cost_rows, exact_cost, map_rows
from goracs_jax.selection.method import Itra
from goracs_jax.selection.problem import Problem, Selection, Step, check_budget, solve
from goracs_jax.shapes import AnyArray, Rows
from goracs_jax.transport import Transport, exact, pair_values, sinkhorn

# A swap must lower POO by more than this: less may be rounding.
GAIN = 1e-7


class Incumbent(NamedTuple):
    """The best subset so far, which swaps are to improve."""

    rows: Int[np.ndarray, " budget"]
    cost: Float[np.ndarray, "budget valid"]  # C_S
    solved: Transport


def itra(
    problem: Problem, budget: int, *, key: jax.Array, settings: Itra | None = None
) -> Selection:
    """Start greedily, then swap single rows by their marginal-improvement scores.

    Args:
        problem: The cost; swaps are accepted by exact transport whatever its solver.
        budget: n.
        key: Not used, since nothing here is random.
        settings: Limits and pairs; the defaults of `Itra` when left out.

    Returns:
        The subset; its trace falls with every swap, and `converged` says that no pair
        of candidates was better.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> itra(Problem(make_cost(x, x)), 2, key=jax.random.key(0)).indices.tolist()
    [1, 4]
    """
    del key
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    settings = settings or Itra()
    cost = problem.materialize(problem.cost)
    incumbent = solved_rows(cost, np.asarray(problem.start(cost, budget)))
    trace = [Step(incumbent.solved.value, time.perf_counter() - started, 0)]
    converged = stopped = False
    while not converged and len(trace) <= settings.max_swaps:
        if stopped := problem.limit.up():
            break
        before, incumbent = incumbent, _first_better(cost, incumbent, settings)
        converged = incumbent is before
        if not converged:
            trace.append(Step(incumbent.solved.value, time.perf_counter() - started, 1))
    rows = np.sort(incumbent.rows).astype(np.int64)
    value = incumbent.solved.value
    return Selection(rows, value, None, tuple(trace), converged, stopped)


@jax.jit
def improvement_scores(
    cost: Cost, rows: Rows, duals: Float[AnyArray, " budget"]
) -> Float[jax.Array, " train"]:
    """Return F_i, the marginal-improvement score of every training row.

    The minimum without row i is the smallest over S or, where i has that one, the
    second smallest, so that two numbers per column serve all rows. A subset of one row
    leaves no minimum without it; its only row is given its mean cost, (1/M) sum_j C_ij.

    The floor of the work is one pass over C, 2 N M dim FLOPs, and for every row the
    selection of R numbers in M.

    Args:
        cost: C as factors.
        rows: S, shape [n].
        duals: u, the row potentials of OT_C(U_S, U_V).

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [1.0], [4.0]], np.float32)
    >>> scores = improvement_scores(make_cost(x, x), np.array([0, 2]), np.zeros(2))
    >>> scores.round(3).tolist()
    [-0.417, -0.042, -0.250]
    """
    n, m = len(rows), cost.shape[1]
    rank = -(-m // n)
    rows = jnp.asarray(rows)
    reduced = cost_rows(cost, rows) - jnp.asarray(duals, jnp.float32)[:, None]
    least, slot = reduced.min(0), reduced.argmin(0)
    others = jnp.where(jnp.arange(n)[:, None] == slot, jnp.inf, reduced).min(0)
    owner = rows[slot]

    def score(block: Block) -> jax.Array:
        gap = block.cost - jnp.where(block.rows[:, None] == owner, others, least)
        t = jax.lax.top_k(gap, rank)[0][:, -1]
        return jnp.minimum(gap - t[:, None], 0).mean(1) + t / n

    scores = map_rows(cost, score)
    return scores.at[rows].set(cost_rows(cost, rows).mean(1)) if n == 1 else scores


def solved_rows(cost: Cost, rows: np.ndarray, g: np.ndarray | None = None) -> Incumbent:
    """Solve the exact transport of a subset, from column potentials g if given."""
    return Incumbent(rows, *solve(cost, rows, exact, g))


def _first_better(cost: Cost, incumbent: Incumbent, settings: Itra) -> Incumbent:
    """Return the subset after the first swap that lowers POO; the same one if none."""
    for slot, entrant in promising_pairs(cost, incumbent, settings):
        rows = incumbent.rows.copy()
        rows[slot] = entrant
        tried = solved_rows(cost, rows, incumbent.solved.g)
        if tried.solved.value < incumbent.solved.value - GAIN:
            return tried
    return incumbent


def promising_pairs(
    cost: Cost, incumbent: Incumbent, settings: Itra
) -> Iterator[tuple[int, int]]:
    """Yield pairs (slot, entrant) that Sinkhorn does not rule out, worst leaver first.

    Args:
        cost: C as factors.
        incumbent: The subset that a row is to leave.
        settings: Candidates and regularisation.
    """
    scores = np.array(improvement_scores(cost, incumbent.rows, incumbent.solved.f))
    slots = np.argsort(-scores[incumbent.rows], kind="stable")[: settings.candidates]
    scores[incumbent.rows] = np.inf
    outside = min(settings.candidates, len(scores) - len(incumbent.rows))
    entrants = np.argsort(scores, kind="stable")[:outside]
    if not outside:
        return
    epsilon, slack = _epsilon(incumbent.cost, settings.pair_epsilon)
    entropic = sinkhorn(incumbent.cost, g=incumbent.solved.g, epsilon=epsilon)
    centre = incumbent.cost.mean()
    kept, swapped = pair_values(
        (incumbent.cost - centre).astype(np.float32),
        (exact_cost(cost, entrants) - centre).astype(np.float32),
        slots,
        entropic.g.astype(np.float32),
        np.float32(epsilon),
        settings.pair_iterations,
    )
    for p, q in np.argwhere(np.asarray(swapped) < float(kept) + slack):
        yield int(slots[p]), int(entrants[q])


def _epsilon(cost: np.ndarray, share: float) -> tuple[float, float]:
    """Return the pairs' regularisation, and the excess over S that rules a pair out."""
    n = len(cost)
    # Equal costs leave nothing to regularise: any epsilon will do.
    epsilon = share * float(np.ptp(cost)) or 1.0
    # The entropy term of one row lies between 0 and epsilon log(n) / n, since no entry
    # of its plan exceeds 1 / M. The factor 2 leaves room for float32 where n is 1.
    return epsilon, epsilon * float(np.log(2 * n)) / n
