r"""The moves of the annealing: two neighbouring slots choose rows and groups anew.

The validation mass is cut into equal units, s of them per slot. For two slots, which
own 2 s units together, and for two rows i, i' the best division of the units is known:
with d_j = C_ij - C_i'j, row i takes the s units with the least d,

    v(i, i') = sum_j C_i'j + sum of the s smallest d_j,

an exact transport without a solver. All pairs of some candidate rows are evaluated, and
one is drawn with probability in proportion to exp(-v / T) (heat bath; Geman and Geman,
1984). At T = 0 that is the best one, and the total cost never rises.

Pairs that share no slot do not touch each other, so a sweep moves n / 5 of them at
once, and the whole search is one program of gathers, sorts and sums.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.cost import distances
from goracs_jax.selection.method import PairMoves
from goracs_jax.selection.wishes.moves import Limits, Tally, accept, allows, tally
from goracs_jax.shapes import AnyArray, sizes_alike

# Equal costs of a unit differ by at most this in float32.
SAME = 1e-6
# Up to this many numbers go through a network, which takes long to compile for more.
FEW = 32


class Slots(NamedTuple):
    """A subset by slot, and the units of validation mass that each slot carries.

    There is room for more slots, see `padded_slots`.
    """

    rows: Int[jax.Array, " room"]
    units: Int[jax.Array, "room units"]  # column numbers


def padded_slots(
    rows: Int[np.ndarray, " budget"], units: Int[np.ndarray, "budget units"]
) -> Slots:
    """Make room for all budgets that share a program: the other slots have row -1.

    >>> slots = padded_slots(np.arange(17), np.zeros((17, 2), int))
    >>> slots.rows[-2:].tolist(), slots.units.shape
    ([16, -1], (18, 2))
    """
    more = sizes_alike(len(rows))[-1] - len(rows)
    rows = np.pad(rows, (0, more), constant_values=-1)
    return Slots(jnp.asarray(rows), jnp.asarray(np.pad(units, ((0, more), (0, 0)))))


class Field(NamedTuple):
    """The pool of candidates and their costs, which moves read and never change."""

    points: Float[jax.Array, "pool dim"]  # x_i / max(D)
    valid: Float[jax.Array, "valid dim"]  # y_j / max(D)
    reward: Float[jax.Array, " pool"]
    near: Int[jax.Array, "valid listed"]  # rows of least cost of every column
    dense: Float[jax.Array, "pool valid"] | None = None  # C itself, if there is room

    def entries(
        self, rows: Int[jax.Array, " rows"], columns: Int[jax.Array, " columns"]
    ) -> Float[jax.Array, "rows columns"]:
        """Return C of some rows and columns."""
        if self.dense is None:
            apart = distances(self.points[rows], self.valid[columns])
            return apart - self.reward[rows][:, None]
        return self.dense[rows[:, None], columns]


@partial(jax.jit, static_argnames="moves")
def sweeps(
    field: Field,
    slots: Slots,
    temperatures: Float[jax.Array, " sweeps"],
    key: jax.Array,
    moves: PairMoves,
    count: Int[AnyArray, ""] | int | None = None,
    limits: Limits | None = None,
) -> tuple[Slots, Float[jax.Array, ""], Float[jax.Array, ""]]:
    """Run one sweep after the other, with slots paired anew in each.

    Args:
        field: Cost and candidates.
        slots: Where to start; rows must be distinct, and those that are -1 come last.
        temperatures: T of every sweep, in the units of the cost of one unit of mass.
        key: Draws pairs, candidates and moves.
        moves: Settings of the moves.
        count: The number of sweeps, where only so many of the temperatures count: the
            length of the list compiles a program of its own, the count does not.
        limits: What the rows must meet, and those of `slots` do.

    Returns:
        The slots reached; the total cost of their units; and how much more the best
        other choice of rows costs, the median over the pairs of the last sweep.

    >>> x = jnp.arange(6.0)[:, None] / 5
    >>> near = jnp.array([[0, 1], [1, 2], [2, 1], [3, 4], [4, 3], [5, 4]])
    >>> field = Field(x, x, jnp.zeros(6), near)
    >>> start = Slots(jnp.array([0, 5]), jnp.array([[0, 1, 2], [3, 4, 5]]))
    >>> cold, key = jnp.zeros(20), jax.random.key(0)
    >>> slots, value, _ = sweeps(field, start, cold, key, PairMoves())
    >>> sorted(slots.rows.tolist()), round(value.item(), 3)
    ([1, 4], 0.8)
    """
    n = (slots.rows >= 0).sum()
    neighbours = neighbouring_slots(field.valid, slots.units, moves.neighbours, n)

    keys = jax.random.split(key, len(temperatures))

    def sweep(
        i: jax.Array | int, state: tuple[Slots, jax.Array]
    ) -> tuple[Slots, jax.Array]:
        slots, _ = state
        pair_key, move_key = jax.random.split(keys[i])
        first, second, paired = pair_slots(neighbours, pair_key, n)
        # Out of bounds is dropped, here and below; -1 would be the last row.
        rows = jnp.where(slots.rows < 0, len(field.points), slots.rows)
        chosen = jnp.zeros(len(field.points), bool).at[rows].set(True)
        now = None if limits is None else tally(limits, rows)
        at = temperatures[i]
        move = jax.vmap(partial(_move, moves, field, chosen, at, limits, now))
        move_keys = jax.random.split(move_key, len(first))
        ends = jnp.stack([first, second], 1)
        rows, units, gap = move(slots.rows[ends], slots.units[ends], move_keys)
        moved = paired & _first_claim(rows, paired, len(chosen))
        if limits is not None and now is not None and limits.shared:
            moved = accept(limits, now, slots.rows[ends], rows, moved)
        ends = jnp.where(moved[:, None], ends, len(slots.rows))
        after = Slots(slots.rows.at[ends].set(rows), slots.units.at[ends].set(units))
        return after, jnp.where(paired, gap, jnp.inf)

    count = len(temperatures) if count is None else count
    none = jnp.full(pairs_per_sweep(len(slots.rows)), jnp.inf, jnp.float32)
    slots, gaps = jax.lax.fori_loop(0, count, sweep, (slots, none))
    gaps = jnp.where(jnp.isinf(gaps), jnp.nan, gaps)  # where there was no other choice
    cost = lambda row, columns: field.entries(row[None], columns).sum()
    costs = jnp.where(slots.rows < 0, 0, jax.vmap(cost)(*slots))
    return slots, costs.sum(), jnp.nanmedian(gaps)


def neighbouring_slots(
    valid: Float[jax.Array, "valid dim"],
    units: Int[jax.Array, "budget units"],
    most: int,
    n: Int[AnyArray, ""] | int,
) -> Int[jax.Array, "budget neighbours"]:
    """List for every slot the slots, `most` of them, whose units have nearest means.

    Only the first n slots count.
    """
    means = valid[units].mean(1)
    # As in `distances`, less a constant in each row, which changes no order.
    products = jnp.matmul(means, means.T, precision=jax.lax.Precision.HIGHEST)
    apart = (means**2).sum(1) - 2 * products
    apart = jnp.fill_diagonal(apart, jnp.inf, inplace=False)
    apart = jnp.where(jnp.arange(len(apart)) < n, apart, jnp.inf)
    return jax.lax.top_k(-apart, min(most, len(apart) - 1))[1]


def pairs_per_sweep(n: int) -> int:
    """Return how many pairs `pair_slots` finds on average: n / 2 (1 - exp(-1/2)).

    >>> pairs_per_sweep(1000), pairs_per_sweep(2)
    (200, 1)
    """
    return max(1, n // 5)


def pair_slots(
    neighbours: Int[jax.Array, "room neighbours"],
    key: jax.Array,
    n: Int[AnyArray, ""] | int,
) -> tuple[
    Int[jax.Array, " pairs"], Int[jax.Array, " pairs"], Bool[jax.Array, " pairs"]
]:
    """Draw random pairs of neighbours that share no slot, in one parallel step.

    Half of the slots, drawn by coin, propose to a random neighbour; those of the other
    half accept the first proposal.

    Args:
        neighbours: The slots that each slot may be paired with.
        key: Draws the pairs.
        n: The number of slots; those behind them only fill the room.

    Returns:
        The first and the second slot of every pair, and which of the pairs exist.
    """
    room, width = neighbours.shape
    slot = jnp.arange(room)
    coin_key, choice_key, order_key = jax.random.split(key, 3)
    # The first numbers that are drawn are the same whatever room there is.
    proposes = jax.random.bernoulli(coin_key, shape=(room,))
    choice = jax.random.randint(choice_key, (room,), 0, jnp.minimum(width, n - 1))
    partner = neighbours[slot, choice]
    rank = (slot + jax.random.randint(order_key, (), 0, n)) % n
    valid = proposes & ~proposes[partner] & (slot < n)
    heard = jnp.full(room, n).at[partner].min(jnp.where(valid, rank, n))
    valid &= heard[partner] == rank
    (first,) = jnp.nonzero(valid, size=pairs_per_sweep(room), fill_value=0)
    found = jnp.minimum(valid.sum(), jnp.maximum(1, n // 5))  # see `pairs_per_sweep`
    return first, partner[first], jnp.arange(len(first)) < found


def _move(
    moves: PairMoves,
    field: Field,
    chosen: Bool[jax.Array, " train"],
    temperature: Float[jax.Array, ""],
    limits: Limits | None,
    now: Tally | None,
    rows: Int[jax.Array, " 2"],
    units: Int[jax.Array, "2 units"],
    key: jax.Array,
) -> tuple[Int[jax.Array, " 2"], Int[jax.Array, "2 units"], Float[jax.Array, ""]]:
    """Move a pair of slots: return rows, units, and the gap to the next choice."""
    s = units.shape[1]
    columns = units.ravel()
    draw_key, heat_key = jax.random.split(key)
    drawn = _draw(field.near, columns, draw_key, moves.drawn)
    again = jnp.tril(drawn[:, None] == drawn, -1).any(1)
    candidates = jnp.concatenate([rows, drawn])
    # The present rows come first and are always open.
    closed = jnp.concatenate([jnp.zeros(2, bool), again | chosen[drawn]])
    # Columns first: every sum over them then runs along the candidates.
    cost = field.entries(candidates, columns).T
    least = jnp.where(closed, jnp.inf, _smallest(cost, s)).at[:2].set(-jnp.inf)
    _, kept = jax.lax.top_k(-least, min(moves.kept, len(least)))
    cost, candidates, closed = cost[:, kept], candidates[kept], closed[kept]
    i, k = np.triu_indices(len(kept), 1)  # the first pair are the present rows
    difference = cost[:, i] - cost[:, k]
    value = cost.sum(0)[k] + _smallest(difference, s)
    value = jnp.where(closed[i] | closed[k], jnp.inf, value)
    if limits is not None and now is not None:
        into = jnp.stack([candidates[i], candidates[k]], 1)
        allowed = jax.vmap(partial(allows, limits, now, rows))(into)
        value = jnp.where(allowed, value, jnp.inf)
    heat = temperature * jax.random.gumbel(heat_key, value.shape)
    best = jnp.argmin(value - heat)
    order = jnp.argsort(difference[:, best])
    # A copy of a present row costs the same: that is no other choice.
    more = value[1:] - value[0]
    gap = jnp.where(jnp.abs(more) <= s * SAME, jnp.inf, more).min(initial=jnp.inf)
    rows = jnp.stack(
        [candidates[jnp.asarray(i)[best]], candidates[jnp.asarray(k)[best]]]
    )
    return rows, columns[order].reshape(2, s), gap


def _draw(
    near: Int[jax.Array, "valid listed"],
    columns: Int[jax.Array, " units"],
    key: jax.Array,
    drawn: int,
) -> Int[jax.Array, " drawn"]:
    """Draw rows from the lists of some columns, of as many columns as possible."""
    column_key, rank_key = jax.random.split(key)
    size = len(columns)
    at = (jax.random.randint(column_key, (), 0, size) + jnp.arange(drawn)) % size
    return near[columns[at], jax.random.randint(rank_key, (drawn,), 0, near.shape[1])]


def _smallest(x: Float[jax.Array, "units rows"], s: int) -> Float[jax.Array, " rows"]:
    """Return the sum of the s smallest of the 2 s numbers of every column of x.

    Both halves go through a sorting network, which is one fused loop over the columns.
    The least of the one and the greatest of the other, and so on, then meet in pairs,
    of which the smaller numbers are the s smallest.

    >>> _smallest(jnp.array([[4.0], [1.0], [3.0], [2.0]]), 2).tolist()
    [3.0]
    """
    if len(x) > FEW:
        return -jax.lax.top_k(-x.T, s)[0].sum(1)
    halves = [[*x[:s]], [*x[s:]]]
    for half in halves:
        for i, k in sorting_network(s):
            half[i], half[k] = (
                jnp.minimum(half[i], half[k]),
                jnp.maximum(half[i], half[k]),
            )
    rising, falling = jnp.stack(halves[0]), jnp.stack(halves[1][::-1])
    return jnp.minimum(rising, falling).sum(0)


def sorting_network(n: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs to compare, one after the other, so that n numbers are sorted.

    The smaller number of each pair goes to its first place. This is Batcher's merge
    exchange (Knuth, The Art of Computer Programming 3, 5.2.2, Algorithm M).

    >>> list(sorting_network(3))
    [(0, 2), (0, 1), (1, 2)]
    """
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p and n > 1:
        q, rest, apart = top, 0, p
        while True:
            yield from ((i, i + apart) for i in range(n - apart) if i & p == rest)
            if q == p:
                break
            q, rest, apart = q // 2, p, q - p
        p //= 2


def _first_claim(
    rows: Int[jax.Array, "pairs 2"], paired: Bool[jax.Array, " pairs"], n_train: int
) -> Bool[jax.Array, " pairs"]:
    """Mark the pairs that come first for both rows that they want."""
    pair = jnp.arange(len(rows))
    wanted = jnp.where(paired[:, None], rows, n_train)  # out of bounds is dropped
    claim = jnp.full(n_train, len(rows)).at[wanted].min(pair[:, None])
    return (claim[rows] == pair[:, None]).all(1)
