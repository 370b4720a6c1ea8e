r"""The first stage: the greedy start on the relaxed objective (KDD 2025).

Without the constraint that each selected row carries 1 / n, the best weights send every
validation point to its nearest selected row, and

    h(S) = (1/M) sum_j min_{i in S} C_ij

is monotone and supermodular. The greedy algorithm adds, n times, the row e with the
largest decrease sum_j max(m_j - C_ej, 0), where m_j = min_{i in S} C_ij.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.cost import (
    Block,
    Cost,
    cost_rows,
    map_rows,
    map_some,
    nearest_rows,
    row_means,
)
from goracs_jax.mesh import replicated
from goracs_jax.selection.wishes.moves import open_rows
from goracs_jax.selection.wishes.record import Wishes
from goracs_jax.shapes import AnyArray, sizes_alike


class GreedyState(NamedTuple):
    """The bounds of lazy evaluation.

    Gains only shrink (supermodularity), so an old gain is an upper bound.
    """

    nearest: Float[jax.Array, " valid"]  # m_j
    gain: Float[jax.Array, " train"]  # upper bound; minus infinity once selected
    fresh: Bool[jax.Array, " train"]  # the bound is the gain for the present m
    looked_into: Int[jax.Array, ""]  # bounds recomputed since the last pick
    # The rows so far, and those that may follow [train], where there are wishes.
    chosen: Any = None
    may: Any = None


def greedy(
    cost: Cost,
    budget: int,
    batch: int = 64,
    wide_entries: int = 1 << 24,
    wishes: Wishes | None = None,
    begun: Int[AnyArray, " begun"] | None = None,
) -> Int[np.ndarray, " budget"]:
    """Pick the n rows that the greedy double loop would pick, in its order.

    The first pick is the row of least mean cost. It changes every m_j, and a pass over
    C gives the gains after it. From there on evaluation is lazy (Minoux, 1978): a step
    recomputes only the rows whose bound still tops the best fresh gain, a batch at a
    time. Which rows a batch has beside the one of the largest bound changes the time
    and nothing else.

    Args:
        cost: C as factors.
        budget: n.
        batch: Rows whose gain is recomputed together: more of them fill a matrix
            product better, and more of them are recomputed for nothing.
        wide_entries: Entries of C (64 MiB) of a wide batch. A pick that has looked into
            a quarter of its rows goes on with wide batches, since the first few picks
            move the gain of nearly every row.
        wishes: What the subset must meet: only rows that leave that possible are
            picked. Where near rows block all others, the last picks may be of no use.
        begun: The rows that the wishes fix, of which the picks begin.

    Returns:
        Row numbers in the order of picking, so that any prefix is the greedy subset of
        that size.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [5.0], [9.0]], np.float32)
    >>> greedy(make_cost(x, x), 2).tolist()
    [1, 0]
    """
    n_train, _ = cost.shape
    # What must be left possible is looked at among as many rows as there is room for.
    room = n_train if wishes is None else min(n_train, sizes_alike(budget)[-1])
    rows = picks(cost, budget, room, batch, wide_entries, wishes, begun)
    return np.asarray(rows)[:budget]


@partial(jax.jit, static_argnames=("room", "batch", "wide_entries"))
def picks(
    cost: Cost,
    budget: Int[AnyArray, ""] | int,
    room: int,
    batch: int = 64,
    wide_entries: int = 1 << 24,
    wishes: Wishes | None = None,
    begun: Int[AnyArray, " begun"] | None = None,
) -> Int[jax.Array, " room"]:
    """Return `greedy`, by a program for all budgets that fit into the room."""
    n_train, n_valid = cost.shape
    batch = min(batch, n_train)
    wide = min(max(batch, wide_entries // n_valid), n_train)

    def stale(state: GreedyState) -> jax.Array:
        return _of_open(state, jnp.where(state.fresh, -jnp.inf, state.gain))

    def fresh(state: GreedyState) -> jax.Array:
        return _of_open(state, jnp.where(state.fresh, state.gain, -jnp.inf))

    def undecided(state: GreedyState) -> jax.Array:
        best = fresh(state).max()
        # A tie is looked into: among equal gains the lowest row number wins.
        return stale(state).max() >= jnp.maximum(best, 0)

    def refresh(state: GreedyState) -> GreedyState:
        few, many = partial(refresh_top, batch), partial(refresh_top, wide)
        return jax.lax.cond(4 * state.looked_into < wide, few, many, state)

    def refresh_top(size: int, state: GreedyState) -> GreedyState:
        bound, rows = topmost(stale(state), size)
        # Rows that are fresh or selected keep what they have: out of bounds is dropped.
        rows = jnp.where(bound > -jnp.inf, rows, n_train + jnp.arange(size))
        new = map_some(cost, rows, _gains(cost, state.nearest))
        gain = state.gain.at[rows].set(new, mode="drop", unique_indices=True)
        known = state.fresh.at[rows].set(True, mode="drop", unique_indices=True)
        looked_into = state.looked_into + size
        return state._replace(gain=gain, fresh=known, looked_into=looked_into)

    def pick(i: AnyArray | int, picked: tuple[GreedyState, jax.Array]) -> tuple:
        state, rows = picked
        if wishes is not None:
            state = state._replace(may=open_rows(wishes, state.chosen, budget, room))
        state = jax.lax.while_loop(undecided, refresh, state)
        # The first of equals, as argmax, in a twentieth of its time on a CPU.
        gain = fresh(state)
        row = jnp.where(gain == gain.max(), jnp.arange(n_train), n_train).min()
        nearest = jnp.minimum(state.nearest, cost_rows(cost, row[None])[0])
        gain = state.gain.at[row].set(-jnp.inf)
        # A gain of zero stays zero, so it needs no second look.
        after = state._replace(nearest=nearest, gain=gain, fresh=gain == 0)
        if wishes is not None:
            after = after._replace(chosen=state.chosen.at[row].set(True))
        return after._replace(looked_into=jnp.int32(0)), rows.at[i].set(row)

    start, begun = _begin(cost, budget, room, wishes, begun)
    rows = jnp.zeros(room, jnp.int32).at[: len(begun)].set(begun)
    return jax.lax.fori_loop(len(begun), budget, pick, (start, rows))[1]


def _gains(
    cost: Cost, nearest: Float[jax.Array, " valid"]
) -> Callable[[Block], jax.Array]:
    """Return the function of a block that gives the gains of its rows."""

    def of(block: Block) -> jax.Array:
        gain = jnp.maximum(nearest - block.cost, 0)
        return gain.sum(1) if cost.mass is None else (gain * cost.mass).sum(1)

    return of


def _all_gains(
    cost: Cost, nearest: Float[jax.Array, " valid"]
) -> Float[jax.Array, " train"]:
    # N numbers go to every device once, and none in the loops that follow.
    return replicated(map_rows(cost, _gains(cost, nearest)), cost.tiling.mesh)


def _of_open(state: GreedyState, gain: jax.Array) -> jax.Array:
    """Return the gains of rows that may be picked, and minus infinity for others."""
    return gain if state.may is None else jnp.where(state.may, gain, -jnp.inf)


def _begin(
    cost: Cost,
    budget: AnyArray | int,
    room: int,
    wishes: Wishes | None,
    begun: AnyArray | None,
) -> tuple[GreedyState, Int[jax.Array, " begun"]]:
    """Return the state after the rows that are begun with, or after the first pick."""
    n_train, _ = cost.shape
    if begun is None or not len(begun):
        # The first pick for any m that no entry of C exceeds.
        mean = row_means(cost) - jnp.asarray(cost.reward)
        if wishes is not None:
            may = open_rows(wishes, jnp.zeros(n_train, bool), budget, room)
            mean = jnp.where(may, mean, jnp.inf)
        begun = jnp.argmin(mean)[None]
        nearest = cost_rows(cost, begun)[0]
    else:
        begun = jnp.asarray(begun)
        others = jnp.ones(n_train, bool).at[begun].set(False)
        nearest = nearest_rows(cost, 1, others).cost[:, 0]
    gain = _all_gains(cost, nearest).at[begun].set(-jnp.inf)
    start = GreedyState(nearest, gain, jnp.ones(n_train, bool), jnp.int32(0))
    if wishes is not None:
        chosen = jnp.zeros(n_train, bool).at[begun].set(True)
        start = start._replace(chosen=chosen, may=jnp.ones(n_train, bool))
    return start, begun


def topmost(
    x: Float[jax.Array, " train"], size: int
) -> tuple[Float[jax.Array, " size"], Int[jax.Array, " size"]]:
    """Return large numbers with their places, the largest of all among them.

    A CPU finds the largest ones. Other devices would sort all numbers for that, which
    costs the TPU compiler as much as all the rest: they ask groups.

    >>> topmost(jnp.array([1.0, 5.0, 3.0, 4.0]), 2)[1].tolist()
    [1, 3]
    """

    def largest(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, place = jax.lax.top_k(x, size)
        return value, place

    return jax.lax.platform_dependent(
        x, cpu=largest, default=lambda x: largest_of_groups(x, size)
    )


def largest_of_groups(
    x: Float[jax.Array, " train"], size: int
) -> tuple[Float[jax.Array, " size"], Int[jax.Array, " size"]]:
    """Return the largest number of each of `size` groups, with its place.

    Neighbours, which may be alike, are in different groups.

    >>> largest_of_groups(jnp.array([1.0, 5.0, 3.0, 4.0]), 2)[1].tolist()
    [2, 1]
    """
    fill = jnp.full(-len(x) % size, -jnp.inf)
    groups = jnp.append(x, fill).reshape(-1, size)
    return groups.max(0), groups.argmax(0) * size + jnp.arange(size)
