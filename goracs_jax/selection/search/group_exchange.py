r"""Exchange whole groups at once.

Call the place of a selected row a slot, k. The optimal plan P of OT_C(U_S, U_V) gives
every slot its group, the validation mass that it carries. With P fixed, row i in slot k
would cost

    Q_ki = sum_j P_kj C_ij,

and choosing the best distinct rows for all n slots is a linear assignment over Q. The
present S is a feasible assignment, so the assigned value is at most <P, C_S> = POO(S);
solving the transport for the new S lowers it again. One round takes one pass over the
training rows, one sparse assignment and one transport of n x M.

An exact plan has at most n + M - 1 entries, so Q costs no more than C itself: a pass
takes 2 N M dim FLOPs for the distances and 2 N (n + M) for Q, and reads the rows once.
On accelerators, where the plan is a dense matrix, Q takes 2 N n M.
A slot whose group has not changed keeps its candidates, and a pass sees only the
columns that the other groups carry.
"""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from goracs_jax.cost import Block, Cost, least_rows, to_points
from goracs_jax.selection.method import GroupExchange
from goracs_jax.selection.problem import Problem, Refined, Step, solve
from goracs_jax.selection.wishes.assign import assign_within
from goracs_jax.selection.wishes.record import Wishes, meets
from goracs_jax.shapes import AnyArray, sizes_alike

SparsePlan = Any  # csr_array of SciPy: its stubs know neither shape nor indices
# A round must lower POO by more than the rounding of float32 distances can feign.
TOLERANCE = 1e-7
DEFAULTS = GroupExchange()


class Candidates(NamedTuple):
    """The best rows of every slot, for the groups of one plan."""

    plan: SparsePlan  # [n, M]
    value: Float[np.ndarray, "budget k"]  # Q, the least first
    rows: Int[np.ndarray, "budget k"]


def largest_entries(plan: Float[AnyArray, "budget valid"]) -> SparsePlan:
    """Keep the n + M largest entries of a plan, which are all entries of an exact one.

    Those of an entropic plan are an approximation, and so are its candidates.

    >>> largest_entries(np.array([[0.3, 0.2], [0.0, 0.5]])).nnz
    3
    """
    plan = np.array(plan, np.float64)
    few = sum(plan.shape)
    if np.count_nonzero(plan) > few:
        flat = plan.reshape(-1)
        flat[np.argpartition(flat, -few)[:-few]] = 0
    return csr_array(plan)


def slot_candidates(
    cost: Cost,
    plan: Float[AnyArray, "budget valid"],
    k: int,
    halvings: int = DEFAULTS.halvings,
) -> tuple[Float[np.ndarray, "budget k"], Int[np.ndarray, "budget k"]]:
    """Return the k rows i with the least Q_ki = sum_j P_kj C_ij, for every slot.

    Args:
        cost: C as factors.
        plan: P, shape [n, M]; its n + M largest entries count.
        k: The number of rows to keep for each slot.
        halvings: See `GroupExchange`.

    Returns:
        Q and row numbers, both of shape [n, k], the least Q first. Only n x k numbers
        survive a block or leave a device.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [5.0], [9.0]], np.float32)
    >>> value, rows = slot_candidates(make_cost(x, x), np.eye(3) / 3, 1)
    >>> rows.T.tolist()
    [[0, 1, 2]]
    """
    slots = np.arange(plan.shape[0])
    return _some_candidates(cost, largest_entries(plan), k, slots, halvings)


def _some_candidates(
    cost: Cost,
    plan: SparsePlan,
    k: int,
    slots: Int[np.ndarray, " slots"],
    halvings: int,
    shut: Bool[np.ndarray, " train"] | None = None,
) -> tuple[Float[np.ndarray, "slots k"], Int[np.ndarray, "slots k"]]:
    """Find the candidates of some slots, from the columns that these carry."""
    groups = plan[slots]
    columns, column = np.unique(groups.indices, return_inverse=True)
    n, m = sizes_alike(plan.shape[0])[-1], plan.shape[1]
    listed = min(cost.shape[0], sizes_alike(k)[-1])
    room = lambda whole: -(-whole // 2**halvings)
    while len(slots) > room(n) or len(columns) > room(m) or groups.nnz > room(n + m):
        halvings -= 1
    # The room is filled with columns and entries of no mass, and slots of no entries.
    fill = lambda x, size: np.pad(x, (0, size - len(x)))
    starts = np.append(groups.indptr, np.full(room(n) - len(slots), groups.nnz))
    value, rows = _least(
        cost,
        fill(columns, room(m)),
        fill(groups.data.astype(np.float32), room(n + m)),
        fill(column.astype(np.int32), room(n + m)),
        starts.astype(np.int32),
        listed,
        shut,
    )
    cut = lambda lists: np.asarray(lists)[: len(slots), :k]
    return cut(value), cut(rows)


@partial(jax.jit, static_argnames="k")
def _least(
    cost: Cost,
    columns: Int[AnyArray, " columns"],
    mass: Float[AnyArray, " entries"],
    column: Int[AnyArray, " entries"],
    starts: Int[AnyArray, " ends"],
    k: int,
    shut: Bool[AnyArray, " train"] | None = None,
) -> tuple[Float[jax.Array, "slots k"], Int[jax.Array, "slots k"]]:
    """Find the candidates for groups that are given as a sparse matrix by rows.

    A CPU adds the entries of a sparse product in their order. Other devices would
    scatter them in no fixed order, so that their bits would change from run to run;
    there the matrix is dense, and its product adds in the order of the kernel.
    """
    slots = len(starts) - 1
    entries = (jnp.asarray(mass), jnp.asarray(column), jnp.asarray(starts))
    sparse = BCSR(entries, shape=(slots, len(columns)))
    carried = to_points(cost, jnp.asarray(cost.valid)[columns])

    def least(plan: BCSR | jax.Array) -> tuple[jax.Array, jax.Array]:
        with jax.default_matmul_precision("highest"):

            def q(block: Block) -> jax.Array:
                of_rows = plan @ block.cost.T
                if shut is None:
                    return of_rows
                return jnp.where(shut[block.rows], jnp.inf, of_rows)

            return least_rows(carried, q, slots, k, width=slots + k)

    return jax.lax.platform_dependent(
        cpu=lambda: least(sparse), default=lambda: least(_dense(sparse))
    )


def _dense(plan: BCSR) -> Float[jax.Array, "slots columns"]:
    """Return a sparse matrix as an array, by a scatter that adds nothing."""
    entry = jnp.arange(len(plan.data))
    # Entries that fill the room lie beyond the last slot, and are dropped.
    slot = jnp.searchsorted(plan.indptr, entry, side="right") - 1
    at = jnp.zeros(plan.shape).at[slot, plan.indices]
    return at.set(plan.data, mode="drop")


def update_candidates(
    cost: Cost,
    plan: SparsePlan,
    k: int,
    old: Candidates | None = None,
    halvings: int = DEFAULTS.halvings,
    shut: Bool[np.ndarray, " train"] | None = None,
) -> Candidates:
    """Find the candidates for a plan, where some may be known from the plan before.

    Args:
        cost: C as factors.
        plan: P, shape [n, M].
        k: The number of rows to keep for each slot.
        old: The candidates for another plan: slots with the same group keep them.
        halvings: See `GroupExchange`.
        shut: Rows that are no candidates; their Q is infinite where they fill a list.

    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.arange(4.0)[:, None], np.array([[0.0], [1.0], [3.0]]))
    >>> before = update_candidates(cost, csr_array([[0.3, 0.2, 0], [0, 0, 0.5]]), 1)
    >>> plan = csr_array([[0, 0.5, 0], [0, 0, 0.5]])
    >>> update_candidates(cost, plan, 1, before).rows.T.tolist()
    [[1, 3]]
    """
    if old is None or old.value.shape[1] != k:
        slots = np.arange(plan.shape[0])
        found = _some_candidates(cost, plan, k, slots, halvings, shut)
        return Candidates(plan, *found)
    # Less mass than float32 can tell apart is no change.
    moved = abs(plan - old.plan).sum(1) > np.finfo(np.float32).eps * plan.sum(1)
    slots = np.flatnonzero(moved)
    value, rows = old.value.copy(), old.rows.copy()
    if len(slots):
        found = _some_candidates(cost, plan, k, slots, halvings, shut)
        value[slots], rows[slots] = found
    return Candidates(plan, value, rows)


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
        known = update_candidates(listing, groups, k, known, settings.halvings, shut)
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
) -> Refined:
    """Exchange groups until no round lowers POO.

    Args:
        problem: The cost, the transport solver, and wishes.
        rows: The subset to start from, distinct, shape [n]; it meets the wishes.
        key: Not used; all stages take one.
        settings: Limits and numbers of candidates.
        started: `time.perf_counter()` that the trace counts from; now when left out.

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
        )
        replaced = len(np.setdiff1d(new, rows))
        if not replaced or not meets(problem.wishes, new):
            return Refined(rows, tuple(trace), True)
        new_cost, better = solve(problem.cost, new, problem.solver, solved.g)
        if better.value >= solved.value - TOLERANCE:
            return Refined(rows, tuple(trace), True)
        rows, rows_cost, solved = new, new_cost, better
        trace.append(Step(solved.value, time.perf_counter() - started, replaced))
    return Refined(rows, tuple(trace), False)
