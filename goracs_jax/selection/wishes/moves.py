"""Which moves keep a subset within its limits: what greedy and annealing ask."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from goracs_jax.selection.wishes.lagrangian import n_least
from goracs_jax.selection.wishes.record import Wishes
from goracs_jax.shapes import AnyArray


class Limits(NamedTuple):
    """The wishes of a pool of rows, and the rows that are near each of them."""

    wishes: Wishes
    near: Int[np.ndarray, "pool width"] | None  # filled up with the size of the pool

    @property
    def shared(self) -> bool:
        """Whether a move may use up what another one needs."""
        return self.wishes.limited or self.near is not None


class Tally(NamedTuple):
    """What is known of a subset of a pool."""

    chosen: Bool[jax.Array, " pool"]
    counts: Any  # rows of each group; None without groups
    load: Any  # their costs; None without costs


def limits_of(wishes: Wishes, pool: Int[np.ndarray, " pool"]) -> Limits:
    """Return the limits of moves among the rows of a pool.

    Args:
        wishes: Of all rows.
        pool: Sorted row numbers.

    >>> no = np.zeros(3, bool)
    >>> wishes = Wishes(no, no, near=np.array([[0, 2], [2, 0]]))
    >>> limits_of(wishes, np.array([0, 2])).near.tolist()
    [[1], [0]]
    """
    if wishes.near is None:
        return Limits(wishes.take(pool), None)
    ends = wishes.near[np.isin(wishes.near, pool).all(1)]
    one, two = np.searchsorted(pool, ends).T
    place = np.arange(len(one)) - np.searchsorted(one, one)
    near = np.full((len(pool), max(place, default=0) + 1), len(pool), np.int32)
    near[one, place] = two
    return Limits(wishes.take(pool), near)


def tally(limits: Limits, rows: Int[jax.Array, " room"]) -> Tally:
    """Count what a subset of the pool has of everything that is limited.

    Rows beyond the pool only fill the room.
    """
    wishes = limits.wishes
    counted = rows < len(wishes.fixed)
    chosen = jnp.zeros(len(wishes.fixed), bool).at[rows].set(True)
    counts = load = None
    if wishes.group is not None:
        zeros = jnp.zeros(len(wishes.least), jnp.int32)
        group = jnp.asarray(wishes.group)[rows]
        counts = zeros.at[group].add(counted.astype(jnp.int32))
    if wishes.parts is not None:
        load = jnp.where(counted, jnp.asarray(wishes.parts)[rows], 0).sum()
    return Tally(chosen, counts, load)


def allows(
    limits: Limits,
    now: Tally,
    out: Int[jax.Array, " 2"],
    into: Int[jax.Array, " 2"],
) -> Bool[jax.Array, ""]:
    """Tell whether two rows may take the places of two chosen ones.

    Args:
        limits: The wishes of the pool.
        now: The subset, which meets them.
        out: The rows that leave, distinct.
        into: The rows that enter, distinct; they may be those that leave.

    >>> limits = Limits(Wishes(jnp.arange(4) == 0, jnp.arange(4) == 3), None)
    >>> now, out = tally(limits, jnp.array([0, 1])), jnp.array([0, 1])
    >>> [bool(allows(limits, now, out, jnp.array(x))) for x in ([2, 0], [1, 2], [0, 3])]
    [True, False, False]
    """
    wishes, near = limits
    stays = (into[:, None] == out).any(1)
    kept = (out[:, None] == into).any(1)
    allowed = (stays | ~jnp.asarray(wishes.closed)[into]).all()
    allowed &= (kept | ~jnp.asarray(wishes.fixed)[out]).all()
    if wishes.group is not None:
        gone, come = (jnp.asarray(wishes.group)[rows] for rows in (out, into))
        groups = jnp.concatenate([gone, come])
        change = (groups[:, None] == come).sum(1) - (groups[:, None] == gone).sum(1)
        counts = now.counts[groups] + change
        allowed &= (counts >= jnp.asarray(wishes.least)[groups]).all()
        allowed &= (counts <= jnp.asarray(wishes.most)[groups]).all()
    if wishes.parts is not None:
        parts = jnp.asarray(wishes.parts)
        load = now.load - parts[out].sum() + parts[into].sum()
        allowed &= load <= wishes.limit
    if near is not None:
        around = jnp.asarray(near)[into]  # [2, width]
        there = now.chosen.at[around].get(mode="fill", fill_value=False)
        leaves = (around[..., None] == out).any(-1)
        enters = (around[..., None] == into).any(-1)
        allowed &= ~(there & ~leaves | enters).any()
    return allowed


def accept(
    limits: Limits,
    now: Tally,
    out: Int[jax.Array, "pairs 2"],
    into: Int[jax.Array, "pairs 2"],
    wanted: Bool[jax.Array, " pairs"],
) -> Bool[jax.Array, " pairs"]:
    """Take moves one after the other, each if it is allowed after those before it.

    Args:
        limits: The wishes of the pool.
        now: The subset, which meets them.
        out: The rows that would leave; no row is in two moves.
        into: The rows that would enter; likewise, among the moves that are wanted.
        wanted: The moves to look at.
    """

    def take(now: Tally, move: tuple) -> tuple[Tally, jax.Array]:
        out, into, wanted = move
        taken = wanted & allows(limits, now, out, into)
        return _after(limits, now, out, into, taken), taken

    return jax.lax.scan(take, now, (out, into, wanted))[1]


def _after(limits: Limits, now: Tally, out, into, taken) -> Tally:
    """Return the tally after a move, or the same one where it is not taken."""
    wishes = limits.wishes
    nowhere = len(wishes.fixed)
    gone, come = (jnp.where(taken, rows, nowhere) for rows in (out, into))
    chosen = now.chosen.at[gone].set(False, mode="drop")
    chosen = chosen.at[come].set(True, mode="drop")
    counts, load = now.counts, now.load
    if wishes.group is not None:
        group, one = jnp.asarray(wishes.group), taken.astype(jnp.int32)
        counts = counts.at[group[out]].add(-one).at[group[into]].add(one)
    if wishes.parts is not None:
        parts = jnp.asarray(wishes.parts)
        load += jnp.where(taken, parts[into].sum() - parts[out].sum(), 0)
    return Tally(chosen, counts, load)


def open_rows(
    wishes: Wishes, chosen: Bool[jax.Array, " train"], n: AnyArray | int, room: int
) -> Bool[jax.Array, " train"]:
    """Mark the rows that may be chosen next, so that n rows can still be reached.

    The cheapest completion T of what is chosen is found by `n_least`. A row outside it
    enters at the price of the dearest row of T that may leave for it: one of its own
    group, or of a group above its least count if its own is below its most. For groups
    and costs this is exact. Near rows are only kept from being chosen together.

    Args:
        wishes: The wishes.
        chosen: The rows so far, all fixed ones among them.
        n: Rows to choose in all.
        room: The most that n may be in this program.

    >>> no, costs = np.zeros(3, bool), np.array([1, 2, 3], np.int32)
    >>> wishes = Wishes(no, no, parts=costs, limit=4)
    >>> open_rows(wishes, jnp.array([False, False, True]), 2, room=3).tolist()
    [True, False, False]
    """
    closed = jnp.asarray(wishes.closed) | chosen
    if wishes.near is not None:
        one, two = jnp.asarray(wishes.near).T
        closed = closed.at[two].max(chosen[one])
    if wishes.group is None and wishes.parts is None:
        return ~closed
    none = jnp.zeros(len(chosen), jnp.int32)
    parts = none if wishes.parts is None else jnp.asarray(wishes.parts)
    of_all = none, jnp.zeros(1, jnp.int32), jnp.full(1, n)  # one group of all rows
    of_each = wishes.group, wishes.least, wishes.most
    group, least, most = of_all if wishes.group is None else map(jnp.asarray, of_each)
    rest = wishes._replace(fixed=chosen, closed=closed & ~chosen, clique=None)
    rows, counted = n_least(parts, rest, room), jnp.arange(room) < n
    completed = jnp.zeros(len(chosen), bool).at[rows].set(counted)
    counts = (
        jnp.zeros(len(least), jnp.int32).at[group[rows]].add(counted.astype(jnp.int32))
    )
    removable = jnp.where(completed & ~chosen, parts, -1)
    dearest = jnp.full(len(least), -1).at[group].max(removable)
    of_any = jnp.where(counts > least, dearest, -1).max()
    leaves = jnp.maximum(dearest, jnp.where(counts < most, of_any, -1))[group]
    enters = leaves >= 0
    if wishes.parts is not None:
        # No overflow: both are less than the limit, or the row is refused.
        spare = wishes.limit - jnp.where(counted, parts[rows], 0).sum()
        enters &= parts <= spare + leaves
    return ~closed & (completed | enters)
