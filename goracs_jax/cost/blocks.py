"""The cost matrix of POO as its factors, read in blocks of training rows.

Floor of one pass over the matrix: 2 N M dim FLOPs; the inputs are read once. A small
matrix may be held, and a pass then reads its 4 N M bytes. Every device passes over its
own rows and communicates only what a step carries at the end.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Bool, Float, Int

from goracs_jax.mesh import AXIS, BY_ROWS, EVERYWHERE, train_mesh
from goracs_jax.shapes import AnyArray, GradNorms, Train, Valid

Carry = TypeVar("Carry")

# A block of C takes at most this many entries: 8 MiB in float32, which stay in the
# cache of a CPU between the product and what is made of it (half the time of 64 MiB).
BLOCK_ENTRIES = 1 << 21
# C is held where it has at most this many entries: 512 MiB in float32.
HELD_ENTRIES = 1 << 27


class Cost(NamedTuple):
    """C as its factors: N x dim + M x dim numbers instead of N x M."""

    # As given, spread over the devices; its last row is repeated until it is even.
    train: Train
    valid: Valid  # less the centre
    centre: Float[AnyArray, " dim"]
    reward: GradNorms  # lambda * g_i / max(g)
    distance_max: Float[AnyArray, ""]
    # D / max(D), spread like the training rows, where `hold` has put it.
    held: Float[AnyArray, "held valid"] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M)."""
        return self.reward.shape[0], self.valid.shape[0]


class Block(NamedTuple):
    """Some consecutive rows of C."""

    rows: Int[jax.Array, " block"]
    # Blocks keep their shape by repeating rows: those are not fresh.
    fresh: Bool[jax.Array, " block"]
    points: Float[jax.Array, "block dim"]  # x_i less the centre
    cost: Float[jax.Array, "block valid"]


def distances(
    x: Float[jax.Array, "rows dim"], y: Float[jax.Array, "cols dim"]
) -> Float[jax.Array, "rows cols"]:
    """Euclidean distances D_ij = ||x_i - y_j||_2, as one matrix product.

    The product runs at HIGHEST precision: TPU and GPU would otherwise round its
    inputs to bfloat16 or TF32. The cancellation in |x|^2 + |y|^2 - 2 x.y leaves an
    error of about 4e-4 |x| where x_i = y_j; that of `exact_cost` is about 1e-8 |x|.

    >>> distances(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).tolist()
    [[5.0]]
    """
    products = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    squared = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :] - 2 * products
    return jnp.sqrt(jnp.maximum(squared, 0))


def without_reward(cost: Cost) -> Cost:
    """The cost whose matrix is D / max(D).

    >>> import numpy as np
    >>> from goracs_jax.cost.build import make_cost
    >>> x = np.array([[0.0], [4.0]])
    >>> cost = make_cost(x, x, grad_norms=np.ones(2), lambda_=0.5)
    >>> cost_rows(without_reward(cost), jnp.array([0])).tolist()
    [[0.0, 1.0]]
    """
    return cost._replace(reward=jnp.zeros(cost.shape[0]))


def to_points(cost: Cost, points: Float[AnyArray, "points dim"]) -> Cost:
    """The cost of the same rows to other points, in the same units.

    Args:
        cost: C as factors.
        points: Less the centre, as the validation points are.

    >>> import numpy as np
    >>> from goracs_jax.cost.build import make_cost
    >>> x = np.array([[0.0], [4.0]])
    >>> cost = make_cost(x, x)  # the centre is 2
    >>> cost_rows(to_points(cost, np.zeros((1, 1))), jnp.arange(2)).tolist()
    [[0.5], [0.5]]
    """
    return cost._replace(valid=points, held=None)


def hold(cost: Cost) -> Cost:
    """The same cost with its matrix in memory, where that is small.

    It pays from the second pass on: one reads 4 N M bytes instead of 2 N M dim FLOPs.

    Args:
        cost: C as factors.

    Returns:
        The cost, as it was where C has more than `HELD_ENTRIES` entries.

    >>> import numpy as np
    >>> from goracs_jax.cost.build import make_cost
    >>> x = np.array([[0.0], [4.0]])
    >>> hold(make_cost(x, x)).held.tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    n_train, n_valid = cost.shape
    if cost.held is not None or n_train * n_valid > HELD_ENTRIES:
        return cost
    return cost._replace(held=_matrix(without_reward(cost)))


@jax.jit
def train_rows(
    cost: Cost, rows: Int[AnyArray, " rows"]
) -> Float[jax.Array, "rows dim"]:
    """Some training rows as they were given, from the devices that hold them.

    >>> import numpy as np
    >>> from goracs_jax.cost.build import make_cost
    >>> cost = make_cost(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    >>> train_rows(cost, jnp.array([1])).tolist()
    [[0.0, 1.0]]
    """
    return _collect(cost, rows, lambda cost, take: take(cost.train))


@jax.jit
def centred_rows(
    cost: Cost, rows: Int[AnyArray, " rows"]
) -> Float[jax.Array, "rows dim"]:
    """Some training rows in float32, centred like the validation points.

    >>> import numpy as np
    >>> from goracs_jax.cost.build import make_cost
    >>> x = np.array([[0.0], [2.0]], np.float16)
    >>> centred_rows(make_cost(x, x), jnp.array([1])).tolist()
    [[1.0]]
    """
    return _centred(cost, train_rows(cost, rows))


def centred_train(cost: Cost) -> Float[jax.Array, "train dim"]:
    """A copy of all training rows, in float32 and centred like the validation points.

    >>> import numpy as np
    >>> from goracs_jax.cost.build import make_cost
    >>> x = np.array([[0.0], [2.0]], np.float16)
    >>> centred_train(make_cost(x, x)).tolist()
    [[-1.0], [1.0]]
    """
    n_train, _ = cost.shape
    return _centred(cost, jnp.asarray(cost.train)[:n_train])


@jax.jit
def cost_rows(
    cost: Cost, rows: Int[AnyArray, " rows"]
) -> Float[jax.Array, "rows valid"]:
    """Rows of C in float32 on the device.

    >>> import numpy as np
    >>> from goracs_jax.cost.build import make_cost
    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> cost_rows(cost, jnp.array([1])).round(3).tolist()
    [[1.0, 0.0, 1.0]]
    """
    if cost.held is None:
        return _cost_of(cost, centred_rows(cost, rows), rows)
    return map_some(cost, rows, lambda block: block.cost)


def block_rows(cost: Cost, width: int = 1) -> int:
    """How many rows of C one block holds: a function of the shapes alone.

    Args:
        cost: C as factors.
        width: Numbers a row that a step keeps beside its M costs, if more than M.
    """
    _, n_valid = cost.shape
    return max(1, min(len(cost.train), BLOCK_ENTRIES // max(n_valid, width)))


def fold_rows(
    cost: Cost,
    init: Carry,
    step: Callable[[Carry, Block], Carry],
    merge: Callable[[Any], Carry],
    width: int = 1,
) -> Carry:
    """Fold `step` over all rows of C, a block at a time, in one `lax.scan` a device.

    Args:
        cost: C as factors.
        init: The carry before the first block of each device.
        step: Pure function of the carry and a `Block`.
        merge: From the carries of all devices, stacked along a first axis, to one.
            They are all that is communicated.
        width: As for `block_rows`.

    Returns:
        The carry after the last block, on every device.

    >>> import numpy as np
    >>> from goracs_jax.cost.build import make_cost
    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> count = lambda seen, block: seen + block.fresh.sum()
    >>> fold_rows(cost, jnp.int32(0), count, lambda parts: parts.sum(0)).item()
    3
    """

    def here(cost: Cost) -> Carry:
        carry, _ = _scan_blocks(cost, init, lambda c, b: (step(c, b), None), width)
        return merge(jax.lax.all_gather(carry, AXIS))

    return _on_every_device(cost, here, EVERYWHERE)


def map_rows(cost: Cost, of: Callable[[Block], jax.Array]) -> jax.Array:
    """A number for every row of C, shape [N]: nothing is communicated.

    Args:
        cost: C as factors.
        of: From a `Block` to a number for each of its rows.

    >>> import numpy as np
    >>> from goracs_jax.cost.build import make_cost
    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> map_rows(cost, lambda block: block.cost.sum(1)).tolist()
    [2.0, 2.0, 2.0]
    """
    n_train, _ = cost.shape
    return _map(cost, of)[:n_train]


def map_some(
    cost: Cost, rows: Int[AnyArray, " rows"], of: Callable[[Block], jax.Array]
) -> jax.Array:
    """What `map_rows` gives for some rows, made where they lie, on every device.

    Args:
        cost: C as factors.
        rows: Row numbers.
        of: From a `Block` to a value, of any shape, for each of its rows.

    >>> import numpy as np
    >>> from goracs_jax.cost.build import make_cost
    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> map_some(cost, jnp.array([1]), lambda block: block.cost.sum(1)).tolist()
    [2.0]
    """
    rows, fresh = jnp.asarray(rows), jnp.array(True)
    return _collect(cost, rows, lambda cost, take: of(_block(cost, rows, fresh, take)))


@jax.jit
def _matrix(cost: Cost) -> Float[jax.Array, "train valid"]:
    return _map(cost, lambda block: block.cost)


def _map(cost: Cost, of: Callable[[Block], jax.Array]) -> jax.Array:
    """What `of` makes of every row, the repeated ones of the last device included."""

    def here(cost: Cost) -> jax.Array:
        _, values = _scan_blocks(cost, None, lambda _, block: (None, of(block)), 1)
        blocks, size, *shape = values.shape
        # The last block begins with rows of the one before.
        repeated = blocks * size - len(cost.train)
        whole = values[:-1].reshape(-1, *shape)
        return jnp.concatenate([whole, values[-1, repeated:]])

    return _on_every_device(cost, here, BY_ROWS)


def _collect(
    cost: Cost,
    rows: Int[AnyArray, " rows"],
    of: Callable[[Cost, Callable[[AnyArray], jax.Array]], jax.Array],
) -> jax.Array:
    """Something of some rows, from the devices that hold them, on every device."""

    def here(cost: Cost) -> jax.Array:
        held = len(cost.train)
        place = rows - jax.lax.axis_index(AXIS) * held
        mine = (place >= 0) & (place < held)
        found = of(cost, lambda x: jnp.asarray(x)[jnp.clip(place, 0, held - 1)])
        mine = mine.reshape(-1, *[1] * (found.ndim - 1))
        return jax.lax.psum(jnp.where(mine, found, 0), AXIS)

    return _on_every_device(cost, here, EVERYWHERE)


def _on_every_device(
    cost: Cost, here: Callable[[Cost], Any], out: PartitionSpec
) -> Any:
    """Run `here` on each device with its own training rows and all else entire."""
    by_rows = [BY_ROWS, *[EVERYWHERE] * 4, None if cost.held is None else BY_ROWS]
    parts = Cost._make(by_rows)
    # Replicated results follow collectives, which the checker cannot see through.
    spread = jax.shard_map(
        here, mesh=train_mesh(), in_specs=(parts,), out_specs=out, check_vma=False
    )
    return spread(cost)


def _scan_blocks(
    cost: Cost, init: Any, step: Callable[[Any, Block], tuple[Any, Any]], width: int
) -> tuple[Any, Any]:
    """`lax.scan` over the blocks of one device, whose part of the rows `cost` holds."""
    held, size = len(cost.train), block_rows(cost, width)
    n_train, _ = cost.shape
    offset = jax.lax.axis_index(AXIS) * held

    def body(carry: Any, first: jax.Array) -> tuple[Any, Any]:
        # The last block starts early to keep its shape.
        start = jnp.minimum(first, held - size)
        place = start + jnp.arange(size)
        rows = jnp.minimum(offset + place, n_train - 1)
        fresh = (place >= first) & (offset + place < n_train)
        take = lambda x: jax.lax.dynamic_slice_in_dim(jnp.asarray(x), start, size)
        return step(carry, _block(cost, rows, fresh, take))

    return jax.lax.scan(body, init, jnp.arange(0, held, size))


def _block(
    cost: Cost,
    rows: Int[jax.Array, " block"],
    fresh: Bool[jax.Array, "..."],
    take: Callable[[AnyArray], jax.Array],
) -> Block:
    """A block of the rows that `take` takes from what this device holds."""
    points = _centred(cost, take(cost.train))
    if cost.held is None:
        return Block(rows, fresh, points, _cost_of(cost, points, rows))
    reward = jnp.asarray(cost.reward)[rows]
    return Block(rows, fresh, points, take(cost.held) - reward[:, None])


def _cost_of(
    cost: Cost, points: Float[jax.Array, "rows dim"], rows: Int[AnyArray, " rows"]
) -> Float[jax.Array, "rows valid"]:
    """Rows of C, given the training rows, centred, and their numbers."""
    scaled = distances(points, jnp.asarray(cost.valid)) / cost.distance_max
    return scaled - jnp.asarray(cost.reward)[rows][:, None]


def _centred(
    cost: Cost, x: Float[jax.Array, "rows dim"]
) -> Float[jax.Array, "rows dim"]:
    return x.astype(jnp.float32) - jnp.asarray(cost.centre)
