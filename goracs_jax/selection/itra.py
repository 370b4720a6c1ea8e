r"""ITRA as published: a greedy start, then one swap at a time (KDD 2025, Alg. 1).

The duals u of OT_C(U_S, U_V) score what every training row is worth to the subset,
without another transport:

    f_ij = min_{k in S, k != i} (C_kj - u_k)
    t_i  = R-th largest of C_ij - f_ij over j,  R = ceil(M / n)
    F_i  = (1/M) sum_j min(C_ij - t_i - f_ij, 0) + t_i / n          (small: valuable)

The worst rows inside and the best outside are paired, and the first pair that lowers
POO is swapped. Here a batch of Sinkhorn problems first rules pairs out, so that exact
transport is spent on promising ones alone.

The R-th largest is what was published. The bound that F_i comes from is concave in t
and greatest at the R-th smallest, with which the swaps end lower on random instances.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from goracs_jax.cost import Block, Cost, cost_rows, exact_cost, map_rows, materialize
from goracs_jax.selection.problem import Problem, Selection, Step, check_budget, solve
from goracs_jax.shapes import AnyArray, Rows
from goracs_jax.transport import Transport, exact, pair_values, sinkhorn

# Entropic regularisation of the pairs, as a share of max(C_S) - min(C_S).
PAIR_EPSILON = 3e-3
# A swap must lower POO by more than this: less may be rounding.
GAIN = 1e-7


class Held(NamedTuple):
    """The subset that the search stands on."""

    rows: Int[np.ndarray, " budget"]
    cost: Float[np.ndarray, "budget valid"]
    solved: Transport


def itra(
    problem: Problem,
    budget: int,
    *,
    key: jax.Array,
    max_swaps: int = 100,
    candidates: int = 30,
) -> Selection:
    """Greedy start, then single swaps chosen by marginal-improvement scores.

    Args:
        problem: The cost; swaps are accepted by exact transport whatever its solver.
        budget: n.
        key: Not used: nothing here is random.
        max_swaps: Where to give up.
        candidates: Rows inside and rows outside that are paired before every swap.

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
    cost = materialize(problem.cost)
    held = _hold(cost, np.asarray(problem.start(cost, budget)))
    trace = [Step(held.solved.value, time.perf_counter() - started, 0)]
    converged = False
    while not converged and len(trace) <= max_swaps:
        before, held = held, _first_better(cost, held, candidates)
        converged = held is before
        if not converged:
            trace.append(Step(held.solved.value, time.perf_counter() - started, 1))
    rows = np.sort(held.rows).astype(np.int64)
    return Selection(rows, held.solved.value, -np.inf, tuple(trace), converged)


@jax.jit
def improvement_scores(
    cost: Cost, rows: Rows, duals: Float[AnyArray, " budget"]
) -> Float[jax.Array, " train"]:
    """F_i, the marginal-improvement score of every training row.

    The minimum without row i is the smallest or, where i holds that one, the second
    smallest over S: two numbers a column serve all rows. A subset of one row leaves no
    minimum without it; its only row is given its mean cost, (1/M) sum_j C_ij.

    Floor: the 2 N M dim FLOPs of one pass over C, and the selection of R in M a row.

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


def _hold(cost: Cost, rows: np.ndarray, g: np.ndarray | None = None) -> Held:
    return Held(rows, *solve(cost, rows, exact, g))


def _first_better(cost: Cost, held: Held, candidates: int) -> Held:
    """After the first swap, in the order of the pairs, that lowers POO; else `held`."""
    for slot, entrant in _promising(cost, held, candidates):
        rows = held.rows.copy()
        rows[slot] = entrant
        tried = _hold(cost, rows, held.solved.g)
        if tried.solved.value < held.solved.value - GAIN:
            return tried
    return held


def _promising(cost: Cost, held: Held, candidates: int) -> Iterator[tuple[int, int]]:
    """Pairs (slot, entrant) that Sinkhorn does not rule out: the worst leaver first."""
    scores = np.array(improvement_scores(cost, held.rows, held.solved.f))
    slots = np.argsort(-scores[held.rows], kind="stable")[:candidates]
    scores[held.rows] = np.inf
    outside = min(candidates, len(scores) - len(held.rows))
    entrants = np.argsort(scores, kind="stable")[:outside]
    if not outside:
        return
    epsilon, slack = _epsilon(held.cost)
    entropic = sinkhorn(held.cost, g=held.solved.g, epsilon=epsilon)
    centre = held.cost.mean()
    kept, swapped = pair_values(
        (held.cost - centre).astype(np.float32),
        (exact_cost(cost, entrants) - centre).astype(np.float32),
        slots,
        entropic.g.astype(np.float32),
        np.float32(epsilon),
    )
    for p, q in np.argwhere(np.asarray(swapped) < float(kept) + slack):
        yield int(slots[p]), int(entrants[q])


def _epsilon(cost: np.ndarray) -> tuple[float, float]:
    """Regularisation of the pairs, and how much worse than S one may look."""
    n = len(cost)
    # Equal costs leave nothing to regularise: any epsilon will do.
    epsilon = PAIR_EPSILON * float(np.ptp(cost)) or 1.0
    # The entropy term of one row lies between 0 and epsilon log(n) / n, since no entry
    # of its plan exceeds 1 / M. The factor 2 leaves room for float32 where n is 1.
    return epsilon, epsilon * float(np.log(2 * n)) / n
