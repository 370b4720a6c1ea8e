r"""Exchange whole groups at once.

Call the place of a selected row a slot, k. The optimal plan P of OT_C(U_S, U_V) gives
every slot its group, the validation mass that it carries. With P fixed, row i in slot k
would cost

    Q_ki = sum_j P_kj C_ij,

and choosing the best distinct rows for all n slots is a linear assignment over Q. The
present S is a feasible assignment, so the assigned value is at most <P, C_S> = POO(S);
solving the transport for the new S lowers it again. One round takes at most one pass
over the training rows, one sparse assignment and one transport of n x M. Where a round
finds nothing and there are few single rows to exchange, all of these are tried.
"""

import time

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from goracs_jax.cost import Cost
from goracs_jax.selection.method import GroupExchange
from goracs_jax.selection.problem import Problem, Refined, Step, solve
from goracs_jax.selection.search.candidates import (
    Candidates,
    largest_entries,
    update_candidates,
)
from goracs_jax.selection.search.row_exchange import best_swap
from goracs_jax.selection.values import Seen
from goracs_jax.selection.wishes.assign import assign_within
from goracs_jax.selection.wishes.record import Wishes, meets

# A round must lower POO by more than the rounding of float32 distances can feign.
TOLERANCE = 1e-7
DEFAULTS = GroupExchange()


def assign(
    value: Float[np.ndarray, "budget k"],
    candidates: Int[np.ndarray, "budget k"],
    current_value: Float[np.ndarray, " budget"],
    current: Int[np.ndarray, " budget"],
) -> Int[np.ndarray, " budget"]:
    """Assign distinct rows to all slots with the least total Q, among candidates.

    Args:
        value: Q of the candidates of each slot, shape [n, k]; infinite where a list
            has fewer.
        candidates: Their row numbers, shape [n, k], distinct within a slot.
        current_value: Q of the row that each slot has now, shape [n].
        current: Those rows, distinct; they make the assignment feasible.

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
    offered = np.isfinite(weight)
    slot, columns, weight = slot[offered], columns[offered], weight[offered]
    # A slot's present row may be among its candidates: one entry of the two is kept.
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
    settings: GroupExchange = DEFAULTS,
    known: Candidates | None = None,
    wishes: Wishes | None = None,
    seen: Seen | None = None,
) -> tuple[Int[np.ndarray, " budget"], Candidates]:
    """Find the best distinct rows for all slots among ALL training rows, for one plan.

    Only k candidates per slot are looked at. They are enough when every slot has one
    that no slot took: its Q bounds the slot's dual potential from above, every row that
    was left out costs the slot at least as much, and prices of rows are never positive,
    so the duals of the small assignment are feasible for the whole one. Else k grows.

    Args:
        cost: C as factors.
        plan: P, shape [n, M].
        rows: The present subset, by slot.
        rows_cost: Its rows of C.
        settings: The number of candidates to begin with, where none are known.
        known: The candidates for the plan before.
        wishes: What the rows must meet. A row that is fixed keeps its slot. Where there
            are limits, the first k candidates are all that is looked at: those of least
            Q with the price of the row, see `Wishes.price`.
        seen: As for `update_candidates`.

    Returns:
        A row for each slot, and the candidates that were enough.
    """
    groups = largest_entries(plan)
    current_value = np.asarray(groups.multiply(rows_cost).sum(1))
    most = min(len(rows), cost.shape[0])  # with n candidates per slot nothing is lost
    k = settings.candidates if known is None else known.value.shape[1]
    shut, listing = None, cost
    free = np.ones(len(rows), bool)
    if wishes is not None:
        shut = np.asarray(wishes.closed | wishes.fixed)
        listing = wishes.listing(cost, len(rows))
        free = ~wishes.fixed[rows]
    while True:
        k = min(k, most)
        given = groups, k, known, settings.halvings, shut
        known = update_candidates(listing, *given, seen)
        value = known.value.astype(np.float64)
        if wishes is not None and wishes.limited:
            if wishes.price is not None:
                value -= wishes.price[known.rows]
            return assign_within(value, known.rows, current_value, rows, wishes), known
        assigned = rows.copy()
        if not free.any():
            return assigned, known
        given = (value[free], known.rows[free], current_value[free], rows[free])
        assigned[free] = assign(*given)
        if k == most or not np.isin(known.rows[free], assigned).all(1).any():
            return assigned, known
        k *= 4  # a pass costs more than a few candidates


def group_exchange(
    problem: Problem,
    rows: Int[np.ndarray, " budget"],
    *,
    key: jax.Array | None = None,
    settings: GroupExchange = DEFAULTS,
    started: float | None = None,
    seen: Seen | None = None,
) -> Refined:
    """Exchange groups, and single rows where they are few, until POO falls no more.

    Args:
        problem: The cost, the transport solver, and wishes.
        rows: The subset to start from, distinct, shape [n]; it meets the wishes.
        key: Not used; all stages take one.
        settings: Limits and numbers of candidates.
        started: `time.perf_counter()` that the trace counts from; now when left out.
        seen: Prices, which spare rows that cost more than any candidate.

    Returns:
        The subset reached, a trace of POO by the problem's solver (it never rises), and
        whether the last round found nothing better.

    Raises:
        NumericalError: The transport solver did not converge.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> found = group_exchange(Problem(make_cost(x, x)), np.array([0, 1]))
    >>> sorted(found.rows.tolist()), found.converged
    ([1, 4], True)
    """
    del key
    started = time.perf_counter() if started is None else started
    known = None
    rows_cost, solved = solve(problem.cost, rows, problem.solver)
    trace = [Step(solved.value, time.perf_counter() - started, 0)]
    for _ in range(settings.max_rounds):
        if problem.limit.up():
            return Refined(rows, tuple(trace), False, stopped=True)
        new, known = best_assignment(
            problem.cost,
            solved.plan,
            rows,
            rows_cost,
            settings,
            known,
            problem.wishes,
            seen,
        )
        found = None
        if len(np.setdiff1d(new, rows)) and meets(problem.wishes, new):
            found = (new, *solve(problem.cost, new, problem.solver, solved.g))
        if found is None or found[-1].value >= solved.value - TOLERANCE:
            found = best_swap(problem, rows, solved.g, settings.swaps)
        if found is None or found[-1].value >= solved.value - TOLERANCE:
            return Refined(rows, tuple(trace), True)
        replaced = len(np.setdiff1d(found[0], rows))
        rows, rows_cost, solved = found
        trace.append(Step(solved.value, time.perf_counter() - started, replaced))
    return Refined(rows, tuple(trace), False)
