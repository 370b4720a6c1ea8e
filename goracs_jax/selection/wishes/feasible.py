"""Subsets that meet all wishes: is there one, and which is near to what is wanted."""

from typing import NoReturn

import numpy as np
from jaxtyping import Float, Int, Real
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_array

from goracs_jax.errors import InputError
from goracs_jax.selection.wishes.given import DECIMALS
from goracs_jax.selection.wishes.lagrangian import WITHIN, n_least, priced_least
from goracs_jax.selection.wishes.record import Wishes, meets, total

NOT_MET = "the wishes cannot be met together: "
# Branches of the integer programme: a search without an end is given up.
NODES = 10_000


def check_wishes(wishes: Wishes | None, budget: int) -> None:
    """Refuse wishes that no subset of n rows meets, and say which wish it is.

    Args:
        wishes: The wishes.
        budget: n, without the rows that are trained on already.

    Raises:
        InputError: There is no such subset. What near rows leave of the other wishes
            is for `feasible_rows` to see.

    >>> wishes = Wishes(np.array([True, True]), np.zeros(2, bool))
    >>> check_wishes(wishes, 1)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: the wishes cannot be met together: 2 rows must be ...
    """
    if wishes is None:
        return
    n, refuse = total(wishes, budget), _refuse
    before = n - budget
    free = np.asarray(~wishes.closed)
    if (must := int(wishes.fixed.sum())) > n:
        refuse(f"{must - before} rows must be in, the budget is {budget}.")
    if (some := int(free.sum())) < n:
        dear = "" if wishes.parts is None else "that cost less than the limit "
        refuse(f"{some - before} rows {dear}may be chosen, the budget is {budget}.")
    if wishes.group is not None:
        _check_groups(wishes, budget, n, free)
    if wishes.parts is not None:
        alone = wishes._replace(clique=None)
        rows = np.asarray(n_least(wishes.parts.astype(np.float64), alone, n))
        if not meets(alone._replace(near=None), rows):
            others = np.sort(wishes.parts)[:n].sum() <= wishes.limit
            which = "rows that meet the other wishes" if others else "rows"
            refuse(f"the cheapest {budget} {which} {_cost(wishes, rows)} the budget.")
    if wishes.clique is not None:
        places = len(np.unique(wishes.clique[free]))
        if places < n:
            refuse(
                f"at most {places - before} rows are as far apart as is wished, the "
                f"budget is {budget}."
            )


def _check_groups(wishes: Wishes, budget: int, n: int, free: np.ndarray) -> None:
    k = len(wishes.least)
    have = np.bincount(wishes.group[free], minlength=k)
    must = np.bincount(wishes.group[wishes.fixed], minlength=k)
    row_of = lambda group: int(np.argmax(wishes.group == group))
    if (short := have < wishes.least).any():
        group = int(short.argmax())
        _refuse(
            f"group_min asks for {wishes.least[group]} rows of the group of row "
            f"{row_of(group)}, of which {have[group]} may be chosen."
        )
    if (over := must > wishes.most).any():
        group = int(over.argmax())
        _refuse(
            f"{must[group]} rows of the group of row {row_of(group)} must be in, "
            f"group_max allows {wishes.most[group]}."
        )
    if (need := int(np.maximum(wishes.least, must).sum())) > n:
        _refuse(
            f"group_min and the rows that must be in ask for {need - n + budget} rows, "
            f"the budget is {budget}."
        )
    if (room := int(np.minimum(wishes.most, have).sum())) < n:
        _refuse(
            f"group_max leaves {room - n + budget} rows that may be chosen, the budget "
            f"is {budget}."
        )


def _cost(wishes: Wishes, rows: Int[np.ndarray, " n"]) -> str:
    """Say how much more than the limit rows cost, and the cure."""
    if (share := float(wishes.shares[rows].sum())) > 1 + WITHIN:
        return f"cost {100 * share:.4g} % of the cost limit: raise it, or lower"
    return (
        f"cost all of the cost limit, and costs of more than {DECIMALS} decimals are "
        "rounded up: raise it a little, or lower"
    )


def _refuse(why: str) -> NoReturn:
    raise InputError(NOT_MET + why)


def feasible_rows(
    wishes: Wishes, wanted: Real[np.ndarray, " train"], n: int
) -> Int[np.ndarray, " n"]:
    """Return a subset that meets all wishes, of rows that are wanted.

    Near rows are thinned in the order of wanting; where too few are left, an integer
    programme decides.

    Args:
        wishes: The wishes, which `check_wishes` has seen.
        wanted: A number per row, small where a row is wanted.
        n: Rows to choose, with those that are trained on already.

    Raises:
        InputError: No n rows are as far apart as is wished, or they cost too much.

    >>> no = np.zeros(3, bool)
    >>> wishes = Wishes(no, no, near=np.array([[0, 1], [1, 0]]), clique=np.arange(3))
    >>> sorted(feasible_rows(wishes, np.arange(3.0), 2).tolist())
    [0, 2]
    """
    # Ranks, so that the multiplier of the costs has a scale.
    wanted = np.argsort(np.argsort(wanted, kind="stable")) / len(wanted)
    thinned = wishes
    if wishes.near is not None:
        thinned = wishes._replace(closed=_thin(wishes, wanted), clique=None)
    if (~thinned.closed).sum() >= n:
        rows = priced_least(wanted, thinned, n).rows
        if meets(wishes, rows):
            return rows
    rows = choose_within(wishes, wanted, n)
    if rows is not None:
        return rows
    if wishes.parts is not None:
        free = wishes._replace(parts=None)
        cheapest = choose_within(free, wishes.shares, n)
        if cheapest is not None:
            far = f"the cheapest {n} rows that are as far apart as is wished"
            _refuse(f"{far} {_cost(wishes, cheapest)} the budget or apart.")
    _refuse(
        f"no {n} rows were found that are as far apart as is wished and meet the other "
        "wishes: lower apart."
    )


def _thin(wishes: Wishes, wanted: np.ndarray) -> np.ndarray:
    """Close each row that is near to one that is wanted more."""
    closed = np.array(wishes.closed)
    starts = np.searchsorted(wishes.near[:, 0], np.arange(len(closed) + 1))
    for row in np.lexsort((wanted, ~wishes.fixed)).tolist():
        if not closed[row]:
            closed[wishes.near[starts[row] : starts[row + 1], 1]] = True
    return closed


def choose_within(
    wishes: Wishes, value: Float[np.ndarray, " train"], n: int
) -> Int[np.ndarray, " n"] | None:
    """Return n rows of little total value that meet all wishes; None if none are found.

    An integer programme, for when nothing simpler has found a subset.

    >>> no = np.zeros(3, bool)
    >>> wishes = Wishes(no, no, near=np.array([[0, 1], [1, 0]]))
    >>> choose_within(wishes, np.array([1.0, 2.0, 3.0]), 2).tolist()
    [0, 2]
    >>> choose_within(wishes, np.ones(3), 3) is None
    True
    """
    open_ = np.flatnonzero(~wishes.closed)
    rules = row_rules(wishes, open_)
    rules.append(LinearConstraint(np.ones((1, len(open_))), n, n))
    found = milp(
        value[open_],
        integrality=1,
        bounds=(wishes.fixed[open_].astype(float), 1),
        constraints=rules,
        options={"node_limit": NODES},
    )
    if found.x is None:
        return None
    rows = open_[found.x > 0.5]
    return rows if len(rows) == n and meets(wishes, rows) else None


def row_rules(
    wishes: Wishes, rows: Int[np.ndarray, " rows"], entry: np.ndarray | None = None
) -> list[LinearConstraint]:
    """State the limits of groups, costs and near rows as linear constraints.

    Args:
        wishes: The wishes.
        rows: Distinct rows, sorted, of which some subset is chosen.
        entry: For every variable, the place of its row in `rows`; one variable per row
            when left out.
    """
    entry = np.arange(len(rows)) if entry is None else entry
    ones = np.ones(len(entry))
    at = np.arange(len(entry))
    rules = []
    if wishes.group is not None:
        k = len(wishes.least)
        matrix = csr_array((ones, (wishes.group[rows][entry], at)), (k, len(entry)))
        asked = np.flatnonzero((wishes.least > 0) | (wishes.most < len(wishes.fixed)))
        if len(asked):
            rules.append(
                LinearConstraint(
                    matrix[asked],
                    wishes.least[asked].astype(float),
                    wishes.most[asked].astype(float),
                )
            )
    if wishes.parts is not None:
        parts = wishes.parts[rows][entry].astype(float)[None]
        rules.append(LinearConstraint(parts, 0, float(wishes.limit)))
    if wishes.near is not None:
        inside = wishes.near[np.isin(wishes.near, rows).all(1)]
        ends = np.searchsorted(rows, inside[inside[:, 0] < inside[:, 1]])
        if len(ends):
            one = csr_array((ones, (entry, at)), (len(rows), len(entry)))
            rules.append(LinearConstraint(one[ends[:, 0]] + one[ends[:, 1]], 0, 1))
    return rules
