"""What a subset must meet, row by row: the one record that every stage asks."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.cost import Cost
from goracs_jax.mesh import replicate
from goracs_jax.shapes import AnyArray


class Wishes(NamedTuple):
    """Which rows must be chosen or not, limits of groups and costs, and near pairs.

    Made by `make_wishes`; no row is both fixed and closed. JAX sees it as a pytree, so
    that what was not wished for, None, is no part of a compiled program.
    """

    fixed: Bool[AnyArray, " train"]  # chosen in any case
    closed: Bool[AnyArray, " train"]  # never chosen
    trained: Bool[AnyArray, " train"] | None = None  # fixed, and not counted in n
    # What one wish needs is None together, which a type checker cannot know: Any.
    # The group of every row [train], and how many rows of each are chosen [groups].
    group: Any = None
    least: Any = None
    most: Any = None
    # Costs in whole parts of the limit, rounded up [train], the limit in parts, and the
    # costs as they are over the limit [train].
    parts: Any = None
    limit: Any = None
    shares: Any = None
    # Pairs of rows of which at most one is chosen [pairs, 2], each in both orders and
    # sorted; and a partition of the rows into sets of rows all near each other [train].
    near: Any = None
    clique: Any = None
    # What the Lagrangian of groups and costs adds to the w_i of a row.
    price: Float[AnyArray, " train"] | None = None

    @property
    def limited(self) -> bool:
        """Whether more is wished for than rows that are in or out."""
        limits = (self.group, self.parts, self.near)
        return any(limit is not None for limit in limits)

    def take(self, rows: Int[np.ndarray, " rows"]) -> "Wishes":
        """Return the wishes of some rows alone, without near pairs."""
        of = lambda x: None if x is None else np.asarray(x)[rows]
        per_row = ("fixed", "closed", "trained", "group", "parts", "shares", "clique")
        taken = {name: of(getattr(self, name)) for name in per_row}
        return self._replace(near=None, price=None, **taken)

    def listing(self, cost: Cost, n: int) -> Cost:
        """Return the cost by which candidates are listed: C with the price of a row.

        A row's mass is 1 / n, so n times its price on each entry of C is its price.
        """
        if self.price is None:
            return cost
        reward = np.asarray(cost.reward) - n * np.asarray(self.price)
        reward = replicate(reward.astype(np.float32), cost.tiling.mesh)
        return cost._replace(reward=reward)


def total(wishes: Wishes | None, budget: int) -> int:
    """Return n with the rows that are trained on already."""
    if wishes is None or wishes.trained is None:
        return budget
    return budget + int(wishes.trained.sum())


def meets(wishes: Wishes | None, rows: Int[np.ndarray, " budget"]) -> bool:
    """Tell whether a subset meets all wishes, exactly.

    Args:
        wishes: The wishes; None are always met.
        rows: Distinct rows, with those that are trained on already.

    >>> wishes = Wishes(np.array([True, False]), np.array([False, False]))
    >>> meets(wishes, np.array([0])), meets(wishes, np.array([1]))
    (True, False)
    """
    if wishes is None:
        return True
    chosen = np.zeros(len(wishes.fixed), bool)
    chosen[rows] = True
    if (wishes.fixed & ~chosen).any() or (wishes.closed & chosen).any():
        return False
    if wishes.group is not None:
        counts = np.bincount(wishes.group[rows], minlength=len(wishes.least))
        if (counts < wishes.least).any() or (counts > wishes.most).any():
            return False
    if wishes.parts is not None and wishes.parts[rows].sum() > wishes.limit:
        return False
    return wishes.near is None or not chosen[wishes.near].all(1).any()
