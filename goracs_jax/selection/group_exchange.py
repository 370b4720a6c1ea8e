r"""Stage 2: exchange whole groups at once.

The optimal plan P of OT_C(U_S, U_V) gives every selected row k, a slot, its group: the
validation mass it carries. With P fixed, row i in slot k would cost

    Q_ki = sum_j P_kj C_ij,

and choosing the best distinct rows for all n slots is a linear assignment over Q. The
present S is a feasible assignment, so the assigned value is at most <P, C_S> = POO(S);
solving the transport for the new S lowers it again. One round is one pass over the
training rows (a matrix product), one sparse assignment and one transport of n x M.
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from goracs_jax.cost import Block, Cost, fold_rows
from goracs_jax.selection.problem import Problem, Step, solve

# The best rows kept for each slot at first; doubled while they may not be enough.
CANDIDATES = 64
# A round must lower POO by more than the rounding of float32 distances can feign.
TOLERANCE = 1e-7
MAX_ROUNDS = 100


@partial(jax.jit, static_argnames="k")
def slot_candidates(
    cost: Cost, plan: Float[jax.Array, "budget valid"], k: int
) -> tuple[Float[jax.Array, "budget k"], Int[jax.Array, "budget k"]]:
    """The k rows i with the least Q_ki = sum_j P_kj C_ij, for every slot.

    Args:
        cost: C as factors.
        plan: P, shape [n, M].
        k: How many rows to keep for each slot.

    Returns:
        Q and row numbers, both of shape [n, k], the least Q first. 2 N M (n + dim)
        FLOPs; only n x k numbers survive a block.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [5.0], [9.0]], np.float32)
    >>> value, rows = slot_candidates(make_cost(x, x), jnp.eye(3) / 3, 1)
    >>> rows.T.tolist()
    [[0, 1, 2]]
    """
    slots = plan.shape[0]

    def step(best: tuple[jax.Array, jax.Array], block: Block) -> tuple:
        q = jnp.matmul(plan, block.cost.T, precision=jax.lax.Precision.HIGHEST)
        q = jnp.concatenate([best[0], jnp.where(block.fresh, q, jnp.inf)], 1)
        negative, place = jax.lax.top_k(-q, k)
        kept = jnp.take_along_axis(best[1], jnp.minimum(place, k - 1), 1)
        return -negative, jnp.where(place < k, kept, block.rows[place - k])

    none = (jnp.full((slots, k), jnp.inf), jnp.full((slots, k), -1, jnp.int32))
    return fold_rows(cost, none, step, width=slots + k)


def assign(
    value: Float[np.ndarray, "budget k"],
    candidates: Int[np.ndarray, "budget k"],
    current_value: Float[np.ndarray, " budget"],
    current: Int[np.ndarray, " budget"],
) -> Int[np.ndarray, " budget"]:
    """Distinct rows for all slots with the least total Q: a sparse assignment.

    Args:
        value: Q of the candidates of each slot, shape [n, k].
        candidates: Their row numbers, shape [n, k], distinct within a slot.
        current_value: Q of the row that each slot has now, shape [n].
        current: Those rows, distinct: they make the assignment feasible.

    Returns:
        A row for each slot, shape [n].

    >>> q, rows = np.array([[1.0, 3.0], [1.5, 9.0]]), np.array([[7, 8], [7, 8]])
    >>> assign(q, rows, np.array([4.0, 5.0]), np.array([0, 1])).tolist()
    [8, 7]
    """
    slots, k = value.shape
    rows, columns = np.unique(
        np.concatenate([candidates.ravel(), current]), return_inverse=True
    )
    slot = np.concatenate([np.repeat(np.arange(slots), k), np.arange(slots)])
    weight = np.concatenate([value.ravel(), current_value])
    # A slot's present row may be among its candidates: keep one entry of the two.
    _, once = np.unique(slot * len(rows) + columns, return_index=True)
    # A full matching uses one entry of each slot, so a shift changes no argmin; SciPy
    # takes a stored zero for a missing edge.
    weight = weight[once] - weight.min() + 1.0
    graph = csr_array((weight, (slot[once], columns[once])), shape=(slots, len(rows)))
    _, matched = min_weight_full_bipartite_matching(graph)
    return rows[matched]


def best_assignment(
    cost: Cost,
    plan: Float[np.ndarray, "budget valid"],
    rows: Int[np.ndarray, " budget"],
    rows_cost: Float[np.ndarray, "budget valid"],
    k: int,
) -> tuple[Int[np.ndarray, " budget"], int]:
    """The best distinct rows for all slots out of ALL training rows, for a fixed plan.

    Only k candidates a slot are looked at. They are enough when every slot has one that
    no slot took: its Q bounds the slot's dual potential from above, every row that was
    left out costs the slot at least as much, and prices of rows are never positive, so
    the duals of the small assignment are feasible for the whole one. Else k is doubled.

    Args:
        cost: C as factors.
        plan: P, shape [n, M].
        rows: The present subset, by slot.
        rows_cost: Its rows of C.
        k: Candidates a slot to begin with.

    Returns:
        A row for each slot, and the k that was enough.
    """
    current_value = (plan * rows_cost).sum(1)
    most = min(len(rows), cost.shape[0])  # with n candidates a slot nothing is lost
    while True:
        k = min(k, most)
        value, candidates = slot_candidates(cost, jnp.asarray(plan, jnp.float32), k)
        value, candidates = np.asarray(value, np.float64), np.asarray(candidates)
        assigned = assign(value, candidates, current_value, rows)
        if k == most or not np.isin(candidates, assigned).all(1).any():
            return assigned, k
        k *= 2


def group_exchange(
    problem: Problem,
    rows: Int[np.ndarray, " budget"],
    *,
    max_rounds: int = MAX_ROUNDS,
    started: float | None = None,
) -> tuple[Int[np.ndarray, " budget"], tuple[Step, ...], bool]:
    """Exchange groups until no round lowers POO.

    Args:
        problem: The cost and the transport solver.
        rows: The subset to start from, distinct, shape [n].
        max_rounds: Where to give up.
        started: `time.perf_counter()` that the trace counts from; now when left out.

    Returns:
        The subset reached, a trace of POO by the problem's solver (it never rises), and
        whether the last round found nothing better.

    Raises:
        InputError: The transport solver did not converge.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> rows, trace, done = group_exchange(Problem(make_cost(x, x)), np.array([0, 1]))
    >>> sorted(rows.tolist()), done
    ([1, 4], True)
    """
    started = time.perf_counter() if started is None else started
    k = CANDIDATES
    rows_cost, held = solve(problem.cost, rows, problem.solver)
    trace = [Step(held.value, time.perf_counter() - started, 0)]
    for _ in range(max_rounds):
        new, k = best_assignment(problem.cost, held.plan, rows, rows_cost, k)
        replaced = len(np.setdiff1d(new, rows))
        if not replaced:
            return rows, tuple(trace), True
        new_cost, solved = solve(problem.cost, new, problem.solver, held.g)
        if solved.value >= held.value - TOLERANCE:
            return rows, tuple(trace), True
        rows, rows_cost, held = new, new_cost, solved
        trace.append(Step(held.value, time.perf_counter() - started, replaced))
    return rows, tuple(trace), False
