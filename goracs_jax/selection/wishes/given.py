"""From what a caller wishes for to checked wishes."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.cost import Cost, check_row_scores
from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_array
from goracs_jax.selection.wishes.near import cliques, near_pairs
from goracs_jax.selection.wishes.record import Wishes
from goracs_jax.shapes import GivenArray

# Whole numbers below this add up without overflow in 32 bits.
LARGEST_LIMIT = 1 << 28
# Costs with at most so many decimals are counted as they are, up to this rounding.
DECIMALS, EXACT = 6, 2.0**-48
NO_LIMIT = 1 << 30


def make_wishes(
    cost: Cost,
    *,
    include: GivenArray | None = None,
    exclude: GivenArray | None = None,
    trained: GivenArray | None = None,
    groups: GivenArray | None = None,
    group_min: Mapping[Any, int] | None = None,
    group_max: Mapping[Any, int] | None = None,
    row_costs: GivenArray | None = None,
    cost_limit: float | int | None = None,
    apart: float | int | None = None,
) -> Wishes | None:
    """Check what is wished for, and put it together row by row.

    Args:
        cost: C as factors; its embeddings say which rows are near.
        include: Rows that must be chosen, row numbers.
        exclude: Rows that must not be.
        trained: Rows that are trained on already: the choice is made beside them.
        groups: The group of every row, integers or strings, shape [N].
        group_min: The least number of chosen rows of some groups.
        group_max: The most of some groups.
        row_costs: c_i >= 0, such as tokens, shape [N].
        cost_limit: The most that the chosen rows may cost together.
        apart: No two chosen rows are closer than this, in the units of the embeddings.

    Returns:
        The wishes, or None where there are none.

    Raises:
        InputError: Something that is given does not fit the rows, or each other.

    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(3), np.eye(3))
    >>> make_wishes(cost), make_wishes(cost, include=[1]).fixed.tolist()
    (None, [False, True, False])
    >>> make_wishes(cost, include=[1], exclude=[0, 1])
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: include and exclude both have row 1: ...
    """
    n_train, _ = cost.shape
    wishes = row_wishes(
        n_train,
        include=include,
        exclude=exclude,
        trained=trained,
        groups=groups,
        group_min=group_min,
        group_max=group_max,
        row_costs=row_costs,
        cost_limit=cost_limit,
    )
    return wishes if apart is None else keep_apart(wishes, cost, apart)


def row_wishes(
    n_train: int,
    *,
    include: GivenArray | None = None,
    exclude: GivenArray | None = None,
    trained: GivenArray | None = None,
    groups: GivenArray | None = None,
    group_min: Mapping[Any, int] | None = None,
    group_max: Mapping[Any, int] | None = None,
    row_costs: GivenArray | None = None,
    cost_limit: float | int | None = None,
) -> Wishes | None:
    """Check all wishes for which no embeddings are needed: see `make_wishes`.

    Raises:
        InputError: As `make_wishes`.

    >>> row_wishes(3, exclude=[0, 2]).closed.tolist()
    [True, False, True]
    """
    given = {"include": include, "exclude": exclude, "trained rows": trained}
    rows = {k: _row_mask(v, n_train, k) for k, v in given.items() if v is not None}
    for one, two in combinations(rows, 2):
        if (both := rows[one] & rows[two]).any():
            raise InputError(
                f"{one} and {two} both have row {both.argmax()}: take it out of one."
            )
    parts, limit, shares = _costs(row_costs, cost_limit, n_train)
    group, least, most = _groups(groups, group_min, group_max, n_train)
    if not rows and parts is None and group is None:
        return None
    no = np.zeros(n_train, bool)
    done = rows.get("trained rows")
    fixed, closed = rows.get("include", no), rows.get("exclude", no)
    if done is not None:
        fixed = fixed | done
        if group is not None:  # limits are those of the rows that are chosen now
            group = np.where(done, len(least), group).astype(np.int32)
            least = np.append(least, np.int32(0))
            most = np.append(most, np.int32(NO_LIMIT))
        if parts is not None:
            parts, shares = np.where(done, 0, parts), np.where(done, 0.0, shares)
    if parts is not None:
        closed = closed | (parts > limit) & ~fixed
    return Wishes(fixed, closed, done, group, least, most, parts, limit, shares)


def keep_apart(wishes: Wishes | None, cost: Cost, radius: float | int) -> Wishes:
    """Add the wish that no two chosen rows are closer than a radius.

    Raises:
        InputError: As `make_wishes`.

    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.array([[0.0], [0.5], [2.0]]), np.zeros((1, 1)))
    >>> keep_apart(None, cost, 1.0).clique.tolist()
    [0, 0, 2]
    """
    n_train, _ = cost.shape
    if wishes is None:
        wishes = Wishes(np.zeros(n_train, bool), np.zeros(n_train, bool))
    near, closed = _near(cost, radius, wishes.fixed, wishes.closed, wishes.trained)
    clique = cliques(near, wishes.group, n_train)
    return wishes._replace(closed=closed, near=near, clique=clique)


def _row_mask(given: GivenArray, n_train: int, name: str) -> Bool[np.ndarray, " train"]:
    rows = as_array(given, name)
    if rows.ndim != 1 or (rows.dtype.kind not in "iu" and rows.size):
        raise InputError(
            f"{name} must be row numbers, a vector of integers, got shape "
            f"{list(rows.shape)} of {rows.dtype}."
        )
    rows = rows.astype(np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= n_train):
        wrong = rows[(rows < 0) | (rows >= n_train)][0]
        raise InputError(
            f"{name} has row {wrong}, and there are {n_train} training rows: row "
            f"numbers are in [0, {n_train - 1}]."
        )
    mask = np.zeros(n_train, bool)
    mask[rows] = True
    return mask


def _costs(
    given: GivenArray | None, limit: float | int | None, n_train: int
) -> tuple[Any, Any, Any]:
    """Return the costs in parts of the limit, the limit, and the shares in it."""
    if (given is None) != (limit is None):
        raise InputError("give row costs and a cost limit together.")
    if given is None or limit is None:
        return None, None, None
    check_row_scores(given, n_train, "row costs")
    if not (np.isfinite(limit) and limit > 0):
        raise InputError(f"cost limit must be a number above 0, got {limit}.")
    costs = np.asarray(as_array(given, "row costs"), np.float64)
    return *in_parts(costs, float(limit)), costs / limit


def in_parts(
    costs: Float[np.ndarray, " train"], limit: float
) -> tuple[Int[np.ndarray, " train"], np.int32]:
    """Return costs and their limit in whole parts.

    Decimal numbers, such as prices, are exact: 4 rows of 2.5 cost 10. Other numbers are
    rounded up, so that what the parts allow is within the limit.

    >>> in_parts(np.array([2.5, 0.75, 11.0]), 10.0)
    (array([ 250,   75, 1001], dtype=int32), np.int32(1000))
    """
    few = np.minimum(costs, np.floor(limit) + 1)  # no more is above the limit, too
    for scale in 10.0 ** np.arange(DECIMALS + 1):
        top = np.floor(limit * scale * (1 + EXACT))
        parts = np.rint(few * scale)
        if top < LARGEST_LIMIT and np.allclose(parts, few * scale, EXACT, 0):
            break
    else:
        top = LARGEST_LIMIT - 1
        parts = np.ceil(few / limit * top)
    return np.minimum(parts, top + 1).astype(np.int32), np.int32(top)


def _groups(
    given: GivenArray | None,
    least: Mapping[Any, int] | None,
    most: Mapping[Any, int] | None,
    n_train: int,
) -> tuple[Int[np.ndarray, " train"] | None, Any, Any]:
    """Return the number of each row's group, and the limits of each group."""
    if given is None:
        if least or most:
            raise InputError(
                "least and most numbers of groups need the group of every row: give "
                "groups."
            )
        return None, None, None
    labels = as_array(given, "groups")
    if labels.shape != (n_train,) or labels.dtype.kind not in "biuU":
        raise InputError(
            f"groups must be {n_train} integers or strings, one per row, got shape "
            f"{list(labels.shape)} of {labels.dtype}."
        )
    if not least and not most:
        raise InputError(
            "groups have neither least nor most numbers: give group_min or group_max."
        )
    names, group = np.unique(labels, return_inverse=True)
    place = {str(name): number for number, name in enumerate(names.tolist())}
    bounds = np.zeros(len(names), np.int32), np.full(len(names), NO_LIMIT, np.int32)
    for name, wished, bound in zip(
        ("group_min", "group_max"), (least or {}, most or {}), bounds, strict=True
    ):
        for label, count in wished.items():
            if str(label) not in place:
                known = ", ".join(list(place)[:5])
                raise InputError(
                    f"{name} names group {label!s}, which no row has: groups are "
                    f"{known}{' and others' if len(place) > 5 else ''}."
                )
            if not isinstance(count, int | np.integer) or not 0 <= count <= NO_LIMIT:
                raise InputError(
                    f"{name} of group {label!s} must be a whole number of rows, got "
                    f"{count!r}."
                )
            bound[place[str(label)]] = count
    if (over := bounds[0] > bounds[1]).any():
        name, low, high = (x[over.argmax()] for x in (names, *bounds))
        raise InputError(
            f"group {name} must have at least {low} rows and at most {high}: change "
            "group_min or group_max."
        )
    return group.reshape(-1).astype(np.int32), *bounds


def check_radius(radius: float | int) -> None:
    """Refuse what is no distance.

    >>> check_radius(-1.0)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: apart must be a distance above 0, got -1.0.
    """
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"apart must be a distance above 0, got {radius}.")


def _near(cost, radius, fixed, closed, done):
    """Return the near pairs among rows that may be chosen, and what they close."""
    check_radius(radius)
    near = near_pairs(cost, radius, ~closed)
    one, two = near.T
    new = fixed if done is None else fixed & ~done
    if (both := new[one] & fixed[two]).any():
        i, j = near[both.argmax()]
        raise InputError(
            f"rows {i} and {j} must both be chosen or were trained on, and are closer "
            f"than {radius:g}: take one out of include, or lower apart."
        )
    closed = closed.copy()
    closed[two[fixed[one] & ~fixed[two]]] = True
    return near[~closed[near].any(1) & ~fixed[near].any(1)], closed
