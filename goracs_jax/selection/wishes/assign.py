"""The assignment of rows to slots within the limits of groups, costs and near rows."""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from goracs_jax.selection.wishes.feasible import row_rules
from goracs_jax.selection.wishes.record import Wishes

# Branches of the integer programme: its relaxation is nearly whole, so few are enough,
# and a count, unlike a time, is the same on every machine.
NODES = 20
GAP = 1e-5  # of the total cost


def assign_within(
    value: Float[np.ndarray, "slots k"],
    candidates: Int[np.ndarray, "slots k"],
    current_value: Float[np.ndarray, " slots"],
    current: Int[np.ndarray, " slots"],
    wishes: Wishes,
) -> Int[np.ndarray, " slots"]:
    """Assign distinct rows to slots with the least total Q, so that limits are met.

    Args:
        value: Q of the candidates of each slot, infinite where there is none.
        candidates: Their row numbers.
        current_value: Q of the row that each slot has now.
        current: Those rows, which meet all limits.
        wishes: The limits; rows that are fixed keep their slots.

    Returns:
        A row for each slot: the present ones where the programme finds no better.

    >>> no = np.zeros(3, bool)
    >>> wishes = Wishes(no, no, parts=np.arange(3), limit=1)
    >>> q, rows = np.array([[0.0, 0.5]]), np.array([[2, 1]])
    >>> assign_within(q, rows, np.array([1.0]), np.array([0]), wishes).tolist()
    [1]
    """
    slots, k = value.shape
    free = ~wishes.fixed[current]
    slot = np.repeat(np.arange(slots), k)
    offered = np.isfinite(value.ravel()) & free[slot]
    offered &= candidates.ravel() != np.repeat(current, k)
    slot = np.append(slot[offered], np.arange(slots))
    row = np.append(candidates.ravel()[offered], current)
    weight = np.append(value.ravel()[offered], current_value)
    rows, entry = np.unique(row, return_inverse=True)
    at = np.arange(len(row))
    per = lambda which, size: csr_array(
        (np.ones(len(at)), (which, at)), shape=(size, len(at))
    )
    rules = [
        LinearConstraint(per(slot, slots), 1, 1),
        LinearConstraint(per(entry, len(rows)), 0, 1),
        *row_rules(wishes, rows, entry),
    ]
    found = milp(
        weight - weight.min(),
        integrality=np.ones(len(at)),
        bounds=Bounds(0, 1),
        constraints=rules,
        options={"node_limit": NODES, "mip_rel_gap": GAP},
    )
    if found.x is None:
        return current
    taken = np.flatnonzero(found.x > 0.5)
    assigned = current.copy()
    assigned[slot[taken]] = row[taken]
    return assigned
