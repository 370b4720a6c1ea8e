"""The cost matrix C of POO as its factors: (N + M) dim numbers instead of N M.

C_ij = D_ij / max(D) - lambda g_i / max(g), with D_ij = ||x_i - y_j||_2

(GORACS, Mei et al., KDD 2025). The training rows are spread over the devices of a mesh
and all else is on each of them. `goracs_jax.cost.passes` reads C block by block.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float, Int, Real

from goracs_jax.mesh import AXIS, BY_ROWS, EVERYWHERE, replicated
from goracs_jax.shapes import AnyArray, GradNorms, Train, Valid

# 8 MiB in float32, which stay in the cache of a CPU between the matrix product and what
# is made of it: half the time of blocks of 64 MiB. Accelerators launch some kernels for
# each block: for blocks of 32 MiB, a quarter as often (benchmarks/launches.py).
BLOCK_ENTRIES, ACCELERATOR_BLOCK_ENTRIES = 1 << 21, 1 << 23
MATRIX_ENTRIES = 1 << 27  # 512 MiB in float32


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How C is cut: its rows over the devices of a mesh, and a device's into blocks.

    A tiling has no arrays. JAX sees it as a part of the structure of a `Cost`, so that
    a jitted function of a cost is compiled for the cost's own mesh and block size.

    Attributes:
        mesh: Devices in a row, which share the training rows; see `mesh.row_mesh`.
        block_entries: The most entries of C that one block holds; by the kind of
            device where it is None.
        matrix_entries: The most entries of C that `materialize` keeps in memory.
    """

    mesh: Mesh
    block_entries: int | None = None
    matrix_entries: int = MATRIX_ENTRIES

    @property
    def on_cpu(self) -> bool:
        """Whether the devices are CPUs."""
        return self.mesh.devices.flat[0].platform == "cpu"

    @property
    def most_entries(self) -> int:
        """The most entries of C that one block holds.

        >>> from goracs_jax.mesh import row_mesh
        >>> Tiling(mesh=row_mesh(jax.devices("cpu"))).most_entries
        2097152
        """
        by_kind = BLOCK_ENTRIES if self.on_cpu else ACCELERATOR_BLOCK_ENTRIES
        return by_kind if self.block_entries is None else self.block_entries


class Cost(NamedTuple):
    """C as its factors, made by `make_cost`."""

    # As given, spread over the devices. The last row is repeated until all devices have
    # the same number of rows.
    train: Train
    valid: Valid  # less the centre
    centre: Float[AnyArray, " dim"]
    reward: GradNorms  # lambda * g_i / max(g), or lambda * r_i / max|r|
    distance_scale: Float[AnyArray, ""]  # max(D), or the median of D
    tiling: Tiling
    # D / distance_scale, spread like the training rows, where `materialize` has put it.
    matrix: Float[AnyArray, "rows valid"] | None = None
    # What was taken off both sets before float32 could hold them, where it could not.
    moved: Float[AnyArray, " dim"] | None = None
    # b_j, the masses of the validation points, which add up to 1; each 1 / M if None.
    mass: Float[AnyArray, " valid"] | None = None
    # sum_j b_j D_ij / distance_scale of each row, from a pass over these very rows,
    # points and masses: whoever replaces one of them, or the scale, puts None here.
    row_means: Float[AnyArray, " train"] | None = None

    @property
    def mean(self) -> Float[AnyArray, " dim"]:
        """Mean of the validation rows as given; x_i is a centred row and this."""
        return self.centre if self.moved is None else self.moved

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M)."""
        return self.reward.shape[0], self.valid.shape[0]


def with_tiling(
    cost: Cost, *, block_entries: int | None = None, matrix_entries: int | None = None
) -> Cost:
    """Return the same cost with other sizes of blocks or of a matrix that is kept.

    Args:
        cost: C as factors.
        block_entries: The most entries of C that one block holds; as before if None.
        matrix_entries: The most entries that `materialize` keeps; as before if None.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(3), np.eye(3))
    >>> with_tiling(cost, block_entries=6).tiling.block_entries
    6
    """
    given = {"block_entries": block_entries, "matrix_entries": matrix_entries}
    changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    return cost._replace(tiling=replace(cost.tiling, **changes))


def distances(
    x: Float[jax.Array, "rows dim"], y: Float[jax.Array, "cols dim"]
) -> Float[jax.Array, "rows cols"]:
    """Compute Euclidean distances D_ij = ||x_i - y_j||_2 by one matrix product.

    The product runs at HIGHEST precision: TPU and GPU would otherwise round its
    inputs to bfloat16 or TF32. The cancellation in |x|^2 + |y|^2 - 2 x.y leaves an
    error of about 4e-4 |x| where x_i = y_j; that of `exact_cost` is about 1e-8 |x|.

    Args:
        x: Points, shape [rows, dim].
        y: Points, shape [cols, dim].

    Returns:
        Distances, shape [rows, cols], in the units of the points.

    >>> distances(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).tolist()
    [[5.0]]
    """
    products = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    squared = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :] - 2 * products
    return jnp.sqrt(jnp.maximum(squared, 0))


def without_reward(cost: Cost) -> Cost:
    """Return the cost whose matrix is D / max(D), without the gradient term.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [4.0]])
    >>> cost = make_cost(x, x, grad_norms=np.ones(2), lambda_=0.5)
    >>> cost_rows(without_reward(cost), jnp.array([0])).tolist()
    [[0.0, 1.0]]
    """
    return cost._replace(reward=jnp.zeros(cost.shape[0]))


def to_points(cost: Cost, points: Float[AnyArray, "points dim"]) -> Cost:
    """Return the cost of the same training rows to other points, in the same units.

    The points have equal masses.

    Args:
        cost: C as factors.
        points: What takes the place of the validation points, less `cost.centre`.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [4.0]])
    >>> cost = make_cost(x, x)  # the centre is 2
    >>> cost_rows(to_points(cost, np.zeros((1, 1))), jnp.arange(2)).tolist()
    [[0.5], [0.5]]
    """
    return cost._replace(valid=points, matrix=None, mass=None, row_means=None)


@jax.jit
def rows_in_place(cost: Cost, places: Int[jax.Array, " places"]) -> Cost:
    """Return the cost of some rows of each device, which stay where they lie.

    Args:
        cost: C as factors.
        places: Equally many for each device, spread over the devices: the place of a
            row among those of its own device.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [4.0]])
    >>> cost = rows_in_place(make_cost(x, x), jnp.array([1]))
    >>> cost_rows(cost, jnp.array([0])).tolist()
    [[1.0, 0.0]]
    """
    mesh = cost.tiling.mesh
    local, size = len(cost.train) // mesh.size, len(places) // mesh.size
    rows = places + local * (jnp.arange(len(places)) // size)
    take = lambda train, places: train[places]
    spread = {"in_specs": (BY_ROWS, BY_ROWS), "out_specs": BY_ROWS}
    train = jax.shard_map(take, mesh=mesh, **spread)(cost.train, places)
    reward = jnp.asarray(cost.reward)[jnp.minimum(rows, cost.shape[0] - 1)]
    reward = replicated(reward, mesh)
    return cost._replace(train=train, reward=reward, matrix=None, row_means=None)


@jax.jit
def train_rows(cost: Cost, rows: Int[AnyArray, " rows"]) -> Real[jax.Array, "rows dim"]:
    """Collect training rows, as they were given, from the devices where they lie.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    >>> train_rows(cost, jnp.array([1])).tolist()
    [[0.0, 1.0]]
    """
    return collect(cost, rows, lambda cost, take: take(cost.train))


@jax.jit
def centred_rows(
    cost: Cost, rows: Int[AnyArray, " rows"]
) -> Float[jax.Array, "rows dim"]:
    """Collect training rows in float32, centred like the validation points.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [2.0]], np.float16)
    >>> centred_rows(make_cost(x, x), jnp.array([1])).tolist()
    [[1.0]]
    """
    return centred(cost, train_rows(cost, rows))


def centred_train(cost: Cost) -> Float[jax.Array, "train dim"]:
    """Copy all training rows in float32, centred like the validation points.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [2.0]], np.float16)
    >>> centred_train(make_cost(x, x)).tolist()
    [[-1.0], [1.0]]
    """
    n_train, _ = cost.shape
    return centred(cost, jnp.asarray(cost.train)[:n_train])


@jax.jit
def cost_rows(
    cost: Cost, rows: Int[AnyArray, " rows"]
) -> Float[jax.Array, "rows valid"]:
    """Bring rows of C, in float32, to every device.

    >>> import numpy as np
    >>> from goracs_jax.cost import make_cost
    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> cost_rows(cost, jnp.array([1])).round(3).tolist()
    [[1.0, 0.0, 1.0]]
    """
    if cost.matrix is None:
        return cost_of(cost, centred_rows(cost, rows), rows)

    def of(cost: Cost, take: Callable[[Any], jax.Array]) -> jax.Array:
        return take(cost.matrix) - jnp.asarray(cost.reward)[rows][:, None]

    return collect(cost, rows, of)


def collect(
    cost: Cost,
    rows: Int[AnyArray, " rows"],
    of: Callable[[Cost, Callable[[AnyArray], jax.Array]], jax.Array],
) -> jax.Array:
    """Bring a value of some training rows from where they lie to every device.

    Args:
        cost: C as factors.
        rows: Row numbers.
        of: From a device's part of the cost, and a function that takes these rows from
            an array spread like the training rows, to one value for each row.
    """

    def on_device(cost: Cost) -> jax.Array:
        local = len(cost.train)
        place = rows - jax.lax.axis_index(AXIS) * local
        mine = (place >= 0) & (place < local)
        found = of(cost, lambda x: jnp.asarray(x)[jnp.clip(place, 0, local - 1)])
        mine = mine.reshape(-1, *[1] * (found.ndim - 1))
        return jax.lax.psum(jnp.where(mine, found, 0), AXIS)

    return on_every_device(cost, on_device, EVERYWHERE)


def on_every_device(
    cost: Cost, on_device: Callable[[Cost], Any], out: PartitionSpec
) -> Any:
    """Run a function on each device of the cost's mesh, with its own training rows.

    Args:
        cost: C as factors.
        on_device: Function of a cost whose `train` and `matrix` have this device's rows
            alone; all else is whole.
        out: How its results are spread.
    """
    specs = dict.fromkeys(Cost._fields, EVERYWHERE)
    specs |= {"train": BY_ROWS, "tiling": cost.tiling}
    specs |= {"matrix": None if cost.matrix is None else BY_ROWS}
    for field in ("moved", "mass", "row_means"):
        specs |= {field: None if getattr(cost, field) is None else EVERYWHERE}
    # Replicated results follow collectives, which the checker cannot see through.
    mapped = jax.shard_map(
        on_device,
        mesh=cost.tiling.mesh,
        in_specs=(Cost._make(specs.values()),),
        out_specs=out,
        check_vma=False,
    )
    return mapped(cost)


def cost_of(
    cost: Cost, points: Float[jax.Array, "rows dim"], rows: Int[AnyArray, " rows"]
) -> Float[jax.Array, "rows valid"]:
    """Compute rows of C from the centred training rows and their numbers."""
    scaled = distances(points, jnp.asarray(cost.valid)) / cost.distance_scale
    return scaled - jnp.asarray(cost.reward)[rows][:, None]


def centred(cost: Cost, x: Real[jax.Array, "rows dim"]) -> Float[jax.Array, "rows dim"]:
    """Return training rows in float32, less the centre."""
    return x.astype(jnp.float32) - jnp.asarray(cost.centre)
