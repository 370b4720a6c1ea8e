r"""Lagrangian relaxation of POO: the prices of the validation points.

A chosen row sends out a mass of 1/n, and to one validation point no more than that
point takes, so P_ij <= min(1/n, 1/M). Relax the rule that a point receives 1/M: what it
lacks is paid for at a price g_j. Rows then no longer compete for points, and row i does
best to serve those that are cheapest for it,

    w_i(g) = min { sum_j (C_ij - g_j) P_ij :  0 <= P_ij <= min(1/n, 1/M),
                                              sum_j P_ij = 1/n }.

With s = max(M / n, 1) this is 1/n times the mean of the s smallest C_ij - g_j, where
only a part of the last one counts if s is no integer. Choosing the n rows of least w_i
is best, so

    B(g) = (1/M) sum_j g_j + sum of the n smallest w_i(g)

is a lower bound of POO whatever the prices are. It is concave, with 1/M - sum_i P_ij
over the chosen rows as a subgradient: prices rise where mass is lacking (Held, Wolfe
and Crowder, Mathematical Programming 1974; for medians Cornuejols, Fisher and
Nemhauser, Management Science 1977). How often a row is chosen on the way tells how much
of it the relaxed problem wants (Barahona and Anbil, Mathematical Programming 2000).

Where validation points have weights, b_j takes the place of 1/M, and t bisects. Limits
of groups and costs are those of `wishes.lagrangian`: n rows of least w_i that meet them
are chosen, and the costs have a multiplier of their own.

The ascent sees a core of training rows, and the cheapest points of each: the arcs.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from goracs_jax.cost import Block, Cost, map_rows, nearest_rows
from goracs_jax.selection.serving import (
    Number,
    Served,
    mass_sent,
    most_served,
    serve,
    served_by,
)
from goracs_jax.selection.wishes.lagrangian import n_least
from goracs_jax.selection.wishes.record import Wishes
from goracs_jax.shapes import AnyArray, sizes_alike

# What the next direction keeps of the last one, and how often it may fail to raise the
# bound before the steps become shorter, by this factor.
MOMENTUM, PATIENCE, SHORTER = 0.7, 10, 0.7
# Weight of the first step in the mean that tells how often a row is chosen.
RECENT = 0.03


class Arcs(NamedTuple):
    """The core: a part of C that an ascent sees.

    There is room for that of another budget: rows and points beyond those that count
    cost infinity.
    """

    points: Int[jax.Array, "core width"]  # the cheapest validation points of each row
    cost: Float[jax.Array, "core width"]  # their C_ij


class Ascent(NamedTuple):
    """The state of an ascent.

    Where there is a limit of costs, its multiplier is the last of the prices, in units
    of sqrt(M): the prices of points and of costs then have slopes of one size.
    """

    g: Float[jax.Array, " prices"]
    chosen: Float[jax.Array, " core"]  # how often each row was chosen of late, in [0,1]
    step: Float[jax.Array, ""]  # multiplier on the step length
    direction: Float[jax.Array, " prices"]
    stalled: Int[jax.Array, ""]  # steps since the bound rose
    bound: Float[jax.Array, ""]  # the best B(g), over the arcs alone
    best: Float[jax.Array, " prices"]  # its g


@partial(jax.jit, static_argnames=("room", "listing"))
def core_arcs(
    core: Cost,
    g: Float[jax.Array, " valid"],
    size: Number,
    width: Number,
    room: int,
    listing: int,
) -> Arcs:
    """List the cheapest validation points of each row of a core, at prices g.

    Args:
        core: C of the rows of the core alone.
        g: Prices.
        size: Rows of the core; those behind them only fill the room.
        width: Points listed per row.
        room: As many are listed, of which `width` count.
        listing: Rows of least C_ij that list point j in any case, if they have room:
            no price can then rise because the rows that would stop it do not see it.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [4.0], [5.0]])
    >>> core_arcs(make_cost(x, x), jnp.zeros(3), 3, 1, room=2, listing=1).cost.tolist()
    [[0.0, inf], [0.0, inf], [0.0, inf]]
    """
    beyond = jnp.arange(core.shape[0]) >= size
    near = nearest_rows(core, listing, beyond).cost[:, -1]
    # More than two numbers C_ij - g_j can differ by.
    ahead = 4 + 2 * jnp.abs(jnp.asarray(core.reward)).max() + 2 * jnp.abs(g).max()

    def lists(block: Block) -> jax.Array:
        order = g - block.cost + jnp.where(block.cost <= near, ahead, 0)
        _, points = jax.lax.top_k(order, room)
        cost = jnp.take_along_axis(block.cost, points, 1)
        counts = ~beyond[block.rows][:, None] & (jnp.arange(room) < width)
        cost = jnp.where(counts, cost, jnp.inf)
        return jnp.stack([points, cost.view(jnp.int32)], 1)

    both = map_rows(core, lists)
    return Arcs(both[:, 0], both[:, 1].view(jnp.float32))


def ascend(
    arcs: Arcs,
    g: Float[jax.Array, " prices"],
    chosen: Float[jax.Array, " core"],
    value: Number,
    step: Number,
    steps: Number,
    n: int,
    mass: Float[AnyArray, " valid"] | None = None,
    wishes: Wishes | None = None,
) -> Ascent:
    """Raise B(g) over the arcs of a core by subgradient steps.

    The length of a step is Polyak's (USSR Computational Mathematics 1969),

        step (value - B(g)) / |direction|^2,

    and `step` shrinks where B(g) no longer rises.

    Args:
        arcs: The core.
        g: Prices to start from, that of the costs last where there is one.
        chosen: How often each row was chosen before.
        value: The POO of some subset.
        step: Multiplier on the length of the first steps, at most 1.
        steps: The number of steps.
        n: The budget.
        mass: b_j, where they differ.
        wishes: Those of the rows of the core.

    >>> x = jnp.arange(3.0)  # the best single row of three is the middle one
    >>> arcs = Arcs(jnp.tile(jnp.arange(3), (3, 1)), abs(x[:, None] - x))
    >>> found = ascend(arcs, x, jnp.zeros(3), 1.0, 1.0, 5, n=1)
    >>> round(found.bound.item(), 4), found.chosen.argmax().item()
    (0.6667, 1)
    """
    n_valid = len(g) - (wishes is not None and wishes.shares is not None)
    served, most = served_by(n, n_valid), most_served(n, n_valid)
    room = min(len(chosen), sizes_alike(n)[-1])
    given = arcs, g, chosen, value, step, steps, served, mass, wishes
    return _ascend(*given, room=room, most=most)


@partial(jax.jit, static_argnames=("room", "most"))
def _ascend(
    arcs: Arcs,
    g: Float[jax.Array, " prices"],
    chosen: Float[jax.Array, " core"],
    value: Number,
    step: Number,
    steps: Number,
    served: Served,
    mass: Float[AnyArray, " valid"] | None,
    wishes: Wishes | None,
    *,
    room: int,
    most: int,
) -> Ascent:
    """Return `ascend`, by a program for all budgets that fit into the room."""
    shares = None if wishes is None else wishes.shares
    n_valid = len(g) - (shares is not None)
    takes = None if mass is None else jnp.minimum(served.mass, mass)[arcs.points]
    counts = jnp.arange(room) < served.n
    filled = jnp.isinf(arcs.cost[:, 0])  # rows that only fill the room

    def climb(_: Number, state: Ascent) -> Ascent:
        points = state.g if shares is None else state.g[:-1]
        reduced = arcs.cost - points[arcs.points]
        w, low, t = serve(reduced, takes, served, most)
        w = jnp.where(filled, jnp.inf, w)
        toll = 0.0
        if shares is not None:
            toll = state.g[-1] / math.sqrt(n_valid)
            w += toll * jnp.asarray(shares)
        if wishes is None:
            gain, rows = jax.lax.top_k(-w, room)
        else:
            rows = n_least(w, wishes, room)
            gain = -w[rows]
        gain = jnp.where(counts, gain, 0)
        paid = points.mean() if mass is None else (points * mass).sum()
        bound = paid - gain.sum()
        if shares is not None:
            bound -= toll
        ends = low[rows][:, None], t[rows][:, None]
        full = None if takes is None else takes[rows]
        parts = mass_sent(reduced[rows], *ends, full, served)
        parts = jnp.where(counts[:, None], parts, 0)
        got = jnp.zeros(n_valid, jnp.int32).at[arcs.points[rows]].add(parts)
        wanted = 1 / n_valid if mass is None else mass
        lacking = wanted - got * (1 / served.parts)
        if shares is not None:
            dues = jnp.where(counts, jnp.asarray(shares)[rows], 0)
            over = (dues.sum() - 1) / math.sqrt(n_valid)
            lacking = jnp.append(lacking, over)
        direction = lacking + MOMENTUM * state.direction
        rose = bound > state.bound
        best = jnp.where(rose, state.g, state.best)
        stalled = jnp.where(rose, 0, state.stalled + 1)
        gave_up = stalled == PATIENCE
        # Weights in proportion to the length of steps (Larsson, Patriksson and
        # Stromberg, Mathematical Programming 1999).
        recent = RECENT * state.step / step
        faded = (1 - recent) * state.chosen
        norm = jnp.maximum((direction**2).sum(), jnp.finfo(jnp.float32).tiny)
        length = state.step * jnp.maximum(value - bound, 0) / norm
        moved = state.g + length * direction
        if shares is not None:
            moved = moved.at[-1].max(0)
        return Ascent(
            # Shorter steps start at the best prices again.
            g=jnp.where(gave_up, best, moved),
            # Out of bounds is dropped.
            chosen=faded.at[jnp.where(counts, rows, len(faded))].set(
                faded[rows] + recent
            ),
            step=jnp.where(gave_up, SHORTER, 1) * state.step,
            direction=jnp.where(gave_up, 0, direction),
            stalled=jnp.where(gave_up, 0, stalled),
            bound=jnp.maximum(bound, state.bound),
            best=best,
        )

    start = Ascent(
        g=g,
        chosen=chosen,
        step=jnp.float32(step),
        direction=jnp.zeros_like(g),
        stalled=jnp.int32(0),
        bound=jnp.float32(-jnp.inf),
        best=g,
    )
    return jax.lax.fori_loop(0, steps, climb, start)
