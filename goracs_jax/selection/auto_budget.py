r"""The budget from which on more examples gain nothing: found on held-out validation.

The validation points are cut in two by chance. Greedy subsets of rising sizes are
chosen for one half, and judged by their POO against the other,

    v(n) = OT_C(U_{S_n}, V_held-out),

which falls while more rows come closer to the distribution behind both halves. The
budget is the least n whose v(n) is within SHARE of the whole fall of the lowest.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from goracs_jax.cost import Cost, column_mass, materialize, to_points
from goracs_jax.errors import InputError
from goracs_jax.mesh import replicate
from goracs_jax.selection.problem import Problem, check_memory, objective
from goracs_jax.selection.search.greedy import greedy
from goracs_jax.selection.search.stages import first_rows
from goracs_jax.selection.wishes import Wishes, total
from goracs_jax.selection.wishes.feasible import check_wishes

#: Sizes rise by the root of two; so many of them without a gain end the search.
PATIENCE = 4
#: A gain below this share of the fall so far is none.
SHARE = 0.01
#: Greedy picks at first; fourfold each time that they are not enough.
PICKS = 64


class CurvePoint(NamedTuple):
    """A size and the POO of a greedy subset against held-out validation."""

    budget: int
    objective: float


class AutoBudget(NamedTuple):
    """A budget, and the curve that it was read from."""

    budget: int
    curve: tuple[CurvePoint, ...]


def auto_budget(
    cost: Cost, *, key: jax.Array, wishes: Wishes | None = None
) -> AutoBudget:
    """Find the budget from which on held-out validation gains nothing.

    Args:
        cost: C as factors.
        key: Cuts validation in two.
        wishes: What subsets must meet: budgets for which none does are left out, so
            that a limit of costs limits the budget, too.

    Returns:
        The budget and the curve, by rising budget.

    Raises:
        InputError: There is one validation row alone, or no budget can be met.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.repeat([0.0, 9.0], 20)[:, None]  # two places, so two rows are enough
    >>> auto_budget(make_cost(x, x), key=jax.random.key(0)).budget
    2
    """
    n_train, n_valid = cost.shape
    check_halves(n_valid)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    order = rng.permutation(n_valid)
    chosen_for, held_out = (
        _half(cost, np.sort(half)) for half in np.array_split(order, 2)
    )
    chosen_for = materialize(chosen_for)
    trained = total(wishes, 0)
    known = np.empty(0, np.int64)
    curve: list[CurvePoint] = []
    refused = None
    for n in sizes_to_try(wishes, n_train):
        try:
            check_memory(n + trained, n_valid)
            if wishes is not None:
                rows = first_rows(Problem(chosen_for, wishes=wishes), n + trained)
            else:
                if len(known) < n:
                    known = np.asarray(greedy(chosen_for, _picks(n, n_train)))
                rows = known[:n]
        except InputError as error:  # no memory, or no rows that are far enough
            refused = error
            break
        curve.append(CurvePoint(n, objective(held_out, rows)))
        if _gains_no_more(curve):
            break
    if refused and not curve:
        raise refused
    values = np.array([point.objective for point in curve])
    enough = values <= values.min() + SHARE * (values[0] - values.min()) + 1e-12
    return AutoBudget(curve[int(enough.argmax())].budget, tuple(curve))


def _half(cost: Cost, columns: Int[np.ndarray, " half"]) -> Cost:
    """Return the cost to some of the validation points."""
    half = to_points(cost, np.asarray(cost.valid)[columns])
    mass = column_mass(cost)
    if mass is None:
        return half
    if not mass[columns].any():
        raise InputError(
            "budget auto holds out half of validation, and all weight is in one half: "
            "give more validation rows some weight."
        )
    part = (mass[columns] / mass[columns].sum()).astype(np.float32)
    return half._replace(mass=replicate(part, cost.tiling.mesh))


def check_halves(n_valid: int) -> None:
    """Refuse validation that cannot be cut in two.

    >>> check_halves(1)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: budget auto holds out half of validation, which ...
    """
    if n_valid < 2:
        raise InputError(
            "budget auto holds out half of validation, which has 1 row: give more "
            "validation rows, or a number for the budget."
        )


def sizes_to_try(wishes: Wishes | None, n_train: int) -> list[int]:
    """List the sizes that the wishes allow, each higher than the last by a root of two.

    Raises:
        InputError: The wishes allow none of them.

    >>> sizes_to_try(None, 12)
    [1, 2, 3, 4, 6, 8, 11, 12]
    >>> sizes_to_try(Wishes(np.arange(12) < 5, np.arange(12) > 9), 12)
    [5, 6, 8, 10]
    """
    least, most = 1, n_train
    if wishes is not None:
        before = total(wishes, 0)
        least = max(1, int(wishes.fixed.sum()) - before)
        most = max(least, int((~wishes.closed).sum()) - before)
    steps = np.rint(2 ** (np.arange(2 * most.bit_length() + 1) / 2)).astype(int)
    between = steps[(steps > least) & (steps < most)]
    allowed, refused = [], None
    for n in np.unique([least, *between, most]).tolist():
        try:
            check_wishes(wishes, n)
            allowed.append(n)
        except InputError as error:
            refused = refused or error
    if refused and not allowed:
        raise refused
    return allowed


def _picks(n: int, n_train: int) -> int:
    picks = PICKS
    while picks < n:
        picks *= 4
    return min(picks, n_train)


def _gains_no_more(curve: list[CurvePoint]) -> bool:
    values = [point.objective for point in curve]
    if len(values) <= PATIENCE:
        return False
    before = min(values[:-PATIENCE])
    return before - min(values) <= SHARE * (values[0] - before)
