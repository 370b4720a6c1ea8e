"""What the tokens of a text see in each layer: their rotations and their masks."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from goracs_jax.models.attention import Asking, Look, visible_pairs
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.execution import Execution
from goracs_jax.models.rope import RopeConfig, rope_table
from goracs_jax.models.splash import splash_for


class Layout(NamedTuple):
    """Positions and mask of sequences that are not one text from left to right.

    A token sees the tokens that it is related to and whose position is not later. Every
    token must be related to itself. With a cache, `positions` and the columns of
    `related` belong to the cached tokens, followed by the new ones.
    """

    positions: Int[Array, "*batch keys"]
    related: Bool[Array, "*batch time keys"]


def looks(
    c: DecoderConfig,
    execution: Execution,
    dtype: Any,
    time: int,
    layout: Layout | None = None,
    at: Int[Array, "*batch places"] | None = None,
) -> Callable[[Int[Array, ""] | int], Look]:
    """Return a function from a layer's index to its rotation and mask.

    Full and sliding layers share one program, because the index may be traced.

    Args:
        c: Sizes of the model.
        execution: How it runs.
        dtype: Type of the activations.
        time: New tokens of a text.
        layout: Positions and mask; None means one text from left to right.
        at: Places of the tokens that ask; None means all.

    >>> look = looks(DecoderConfig.tiny(), Execution(), jnp.float32, 3)(0)
    >>> look.visible.astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    keys = jnp.arange(time) if layout is None else layout.positions
    new = keys[..., keys.shape[-1] - time :]

    def look(rope: RopeConfig, window: int | None) -> Look:
        speed = rope.frequencies(c.head_dim)
        table = partial(rope_table, frequencies=speed, magnitude=rope.magnitude)
        turn = table(new)
        if at is not None:
            seen = visible_pairs(at, keys, window)
            return Look(turn, seen, asking=Asking(at, table(at)))
        seen = visible_pairs(new, keys, window)
        return Look(turn, seen if layout is None else seen & layout.related)

    full = look(c.rope, None)
    if layout is None and at is None:
        full = full._replace(splash=splash_for(c, execution, time, dtype))
    by_window = lambda index: full
    if any(c.sliding):
        sliding = look(c.sliding_rope or c.rope, c.window)
        is_sliding = jnp.asarray(c.sliding)
        by_window = lambda index: jax.tree.map(
            partial(jnp.where, is_sliding[index]), sliding, full
        )
    if not any(c.no_rope):
        return by_window
    is_still = jnp.asarray(c.no_rope)
    return lambda index: by_window(index).still(is_still[index])
