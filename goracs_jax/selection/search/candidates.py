"""The candidates of every slot: the rows that cost least with its group.

With the groups of a plan P, row i in slot k costs Q_ki = sum_j P_kj C_ij. An exact plan
has at most n + M - 1 entries, so Q costs no more than C itself: a pass takes 2 N M dim
FLOPs for the distances and 2 N (n + M) for Q, and reads the rows once. On accelerators,
where the plan is a dense matrix, Q takes 2 N n M. A slot whose group has not changed
keeps its candidates, and a pass sees only the columns that the other groups carry.

Prices g leave rows out. A group of an exact plan is one way for a row to send out its
mass, and none costs it less than w_i(g) at these prices, so that

    Q_ki >= w_i(g) + sum_j P_kj g_j.

Rows are looked at in the order of w_i, until none that is left can be a candidate.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from goracs_jax.cost import Block, Cost, column_mass, least_rows, to_points
from goracs_jax.selection.method import GroupExchange
from goracs_jax.selection.values import Seen, cheapest_first
from goracs_jax.shapes import AnyArray, sizes_alike

SparsePlan = Any  # csr_array of SciPy: its stubs know neither shape nor indices
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


def _cheap_candidates(
    cost: Cost,
    plan: SparsePlan,
    k: int,
    slots: Int[np.ndarray, " slots"],
    halvings: int,
    seen: Seen,
) -> tuple[Float[np.ndarray, "slots k"], Int[np.ndarray, "slots k"]]:
    """Find what `_some_candidates` finds, among as few rows as prices allow."""
    paid = plan[slots] @ seen.g.astype(np.float64)
    value = np.full((len(slots), k), np.inf, np.float32)
    rows, open_ = np.zeros((len(slots), k), np.int32), np.arange(len(slots))
    for part in cheapest_first(cost, seen.w):
        given = plan, k, slots[open_], halvings, ~part.fresh
        found, places = _some_candidates(part.cost, *given)
        both = np.concatenate([value[open_], found], 1)
        numbers = np.concatenate([rows[open_], part.rows[places]], 1)
        least = np.lexsort((numbers, both))[:, :k]
        value[open_] = np.take_along_axis(both, least, 1)
        rows[open_] = np.take_along_axis(numbers, least, 1)
        open_ = np.flatnonzero(value[:, -1] >= paid + part.later)
        if not len(open_):
            break
    return value, rows


def sends_all(cost: Cost, plan: SparsePlan) -> bool:
    """Tell whether each group is a way to send out a mass of 1 / n.

    Those of an entropic plan without its least entries are not.

    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(2), np.eye(2))
    >>> [sends_all(cost, csr_array(np.eye(2) * mass)) for mass in (0.5, 0.4)]
    [True, False]
    >>> sends_all(make_cost(np.eye(4), np.eye(4)), csr_array([[1.0, 0.0, 0.0, 0.0]]))
    False
    """
    n, n_valid = plan.shape
    mass = column_mass(cost)
    most = np.minimum(1 / n, np.full(n_valid, 1 / n_valid) if mass is None else mass)
    slack = 1e-6  # more than a simplex is off, and of the size of rounding in Q
    fits = (plan.data <= most[plan.indices] * (1 + slack)).all()
    return bool(fits and (abs(n * plan.sum(1) - 1) < slack).all())


def update_candidates(
    cost: Cost,
    plan: SparsePlan,
    k: int,
    old: Candidates | None = None,
    halvings: int = DEFAULTS.halvings,
    shut: Bool[np.ndarray, " train"] | None = None,
    seen: Seen | None = None,
) -> Candidates:
    """Find the candidates for a plan, where some may be known from the plan before.

    Args:
        cost: C as factors.
        plan: P, shape [n, M].
        k: The number of rows to keep for each slot.
        old: The candidates for another plan: slots with the same group keep them.
        halvings: See `GroupExchange`.
        shut: Rows that are no candidates; their Q is infinite where they fill a list.
        seen: Prices that leave rows out. Used where no row is shut and all groups send
            out 1 / n; where C is so small that it is kept, a pass takes less than its
            parts.

    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.arange(4.0)[:, None], np.array([[0.0], [1.0], [3.0]]))
    >>> before = update_candidates(cost, csr_array([[0.3, 0.2, 0], [0, 0, 0.5]]), 1)
    >>> plan = csr_array([[0, 0.5, 0], [0, 0, 0.5]])
    >>> update_candidates(cost, plan, 1, before).rows.T.tolist()
    [[1, 3]]
    """
    given = cost, plan, k
    small = cost.matrix is not None
    if seen is None or shut is not None or small or not sends_all(cost, plan):
        find = partial(_some_candidates, *given, halvings=halvings, shut=shut)
    else:
        find = partial(_cheap_candidates, *given, halvings=halvings, seen=seen)
    if old is None or old.value.shape[1] != k:
        return Candidates(plan, *find(np.arange(plan.shape[0])))
    # Less mass than float32 can tell apart is no change.
    moved = abs(plan - old.plan).sum(1) > np.finfo(np.float32).eps * plan.sum(1)
    slots = np.flatnonzero(moved)
    value, rows = old.value.copy(), old.rows.copy()
    if len(slots):
        value[slots], rows[slots] = find(slots)
    return Candidates(plan, value, rows)
