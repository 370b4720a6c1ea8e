"""The cost matrix of POO, from embeddings and gradient norms.

C_ij = D_ij / max(D) - lambda * g_i / max(g)      (GORACS, Mei et al., KDD 2025)

Rewards r_i of any sign may stand in place of the norms, divided by max|r|, and the
median of D in place of its largest entry.
"""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from goracs_jax.choices import Scale
from goracs_jax.cost.checks import (
    check_inputs,
    check_norms,
    check_weights,
    chunks,
)
from goracs_jax.cost.factors import (
    MATRIX_ENTRIES,
    Cost,
    Tiling,
    cost_rows,
    train_rows,
    without_reward,
)
from goracs_jax.cost.passes import Block, map_rows
from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_array
from goracs_jax.mesh import replicate, replicated, row_mesh, shard_rows
from goracs_jax.shapes import AnyArray, GivenArray

#: Entries of D whose median stands for all: enough to be close to it (the share of
#: entries below is off by about 0.5 / sqrt(2^20), a 2000th), and few enough to sort.
MEDIAN_ENTRIES = 1 << 20


def make_cost(
    train: GivenArray,
    valid: GivenArray,
    grad_norms: GivenArray | None = None,
    lambda_: float = 0.0,
    *,
    rewards: GivenArray | None = None,
    scale: str = "max",
    valid_weights: GivenArray | None = None,
    mesh: Mesh | None = None,
    block_entries: int | None = None,
    matrix_entries: int = MATRIX_ENTRIES,
) -> Cost:
    """Make C of two sets of embeddings: C_ij = D_ij / max(D) - lambda * g_i / max(g).

    Both sets are centred on the mean of the validation embeddings, block by block:
    distances stay what they are and keep more of their digits. Where all points
    coincide, max(D) is taken as 1 (D is zero whatever the scale).

    Args:
        train: x_i, shape [N, dim], in any form that `inputs.arrays.as_array` reads:
            floats, or the int8 or uint8 of quantised embeddings. A CPU uses numbers of
            up to 32 bits where they lie, memory-mapped or not: leave them as they are
            while the cost is in use.
        valid: y_j, shape [M, dim].
        grad_norms: g_i >= 0, shape [N]; may be left out when lambda is 0.
        lambda_: Weight of the gradient term, in units of the largest distance.
        rewards: r_i of any sign, shape [N], in place of g_i: the term is then
            lambda * r_i / max|r|.
        scale: Divide D by its largest entry, or by its median (see `median_distance`),
            so that one distant row does not shrink all other distances. Where the
            median is zero, the largest entry serves.
        valid_weights: How much each validation point counts, numbers >= 0, shape [M]:
            its mass is its share of their sum. All count alike if None.
        mesh: The devices in a row that share the training rows (`mesh.row_mesh`); all
            devices if None.
        block_entries: The most entries of C that one block of a pass holds; by the
            kind of device when left out.
        matrix_entries: The most entries of C that `materialize` keeps in memory.

    Returns:
        The cost, on the devices of the mesh.

    Raises:
        InputError: As `check_inputs`; no such scale; weights that are negative, or all
            zero; or embeddings so large or so close together that float32 cannot hold
            their squared distances.

    >>> from goracs_jax.cost import cost_rows
    >>> cost = make_cost(np.zeros((2, 1)), np.ones((1, 1)), np.array([1.0, 2.0]), 0.5)
    >>> cost_rows(cost, jnp.arange(2)).tolist()
    [[0.75], [0.5]]
    """
    train = as_array(train, "training embeddings")
    valid = as_array(valid, "validation embeddings")
    check_inputs(train, valid, grad_norms, lambda_, rewards)
    if scale not in get_args(Scale):
        raise InputError(f"scale must be max or median, got {scale!r}.")
    scores = grad_norms if rewards is None else rewards
    centre = valid.mean(0, dtype=np.float64)
    reach = max(
        max((x.max(0) - centre).max(), (centre - x.min(0)).max())
        for x in (*chunks(train), *chunks(valid))
    )
    if reach and not 1e-15 < reach < 1e15:
        raise InputError(
            f"embeddings lie up to {reach:.1e} from their mean, and squared distances "
            "must fit float32: rescale both sets to a reach between 1e-15 and 1e15."
        )
    moved = None
    if train.dtype.itemsize > 4 or not train.dtype.isnative:
        # float32 cannot hold such rows before they are centred.
        moved, rows = centre, np.empty(train.shape, np.float32)
        for part, given in zip(chunks(rows), chunks(train), strict=True):
            part[:] = given - centre
        train, valid, centre = rows, valid - centre, np.zeros_like(centre)
    centre = centre.astype(np.float32)
    mesh = row_mesh(jax.devices()) if mesh is None else mesh
    cost = Cost(
        train=shard_rows(train, mesh),
        valid=replicate((valid - np.float64(centre)).astype(np.float32), mesh),
        centre=replicate(centre, mesh),
        reward=replicate(_reward(scores, lambda_, len(train)), mesh),
        distance_scale=jnp.float32(1),
        tiling=Tiling(
            mesh=mesh, block_entries=block_entries, matrix_entries=matrix_entries
        ),
        moved=None if moved is None else replicate(moved.astype(np.float32), mesh),
        mass=_mass(valid_weights, len(valid), mesh),
    )
    plain = without_reward(cost)  # with unit scale: C is D itself
    size, mean = _largest_and_means(plain)
    if scale == "median":
        median = median_distance(plain)
        size = jnp.where(median > 0, median, size)
    size = jnp.where(size > 0, size, 1.0)
    return cost._replace(distance_scale=size, row_means=mean / size)


def _mass(
    weights: GivenArray | None, n_valid: int, mesh: Mesh
) -> Float[jax.Array, " valid"] | None:
    """Return the masses of weighted validation points."""
    if weights is None:
        return None
    check_weights(weights, n_valid)
    weights = np.asarray(as_array(weights), np.float64)
    return replicate((weights / weights.sum()).astype(np.float32), mesh)


def with_lambda(
    cost: Cost,
    grad_norms: GivenArray | None,
    lambda_: float,
    rewards: GivenArray | None = None,
) -> Cost:
    """Change lambda, and keep the distances: no pass over C is needed.

    Args:
        cost: C as factors, for any lambda.
        grad_norms: As for `make_cost`.
        lambda_: As for `make_cost`.
        rewards: As for `make_cost`.

    Returns:
        What `make_cost` gives for this lambda.

    Raises:
        InputError: A lambda or norms that `make_cost` refuses.

    >>> x, g = np.array([[0.0], [1.0]]), np.array([1.0, 2.0])
    >>> with_lambda(make_cost(x, x), g, 0.5).reward.tolist()
    [0.25, 0.5]
    """
    n_train, _ = cost.shape
    check_norms(grad_norms, lambda_, n_train, rewards)
    scores = grad_norms if rewards is None else rewards
    reward = _reward(scores, lambda_, n_train)
    return cost._replace(reward=replicate(reward, cost.tiling.mesh))


def column_mass(cost: Cost) -> Float[np.ndarray, " valid"] | None:
    """Return the masses of the validation points in float64; None if they are equal.

    >>> x = np.array([[0.0], [4.0]])
    >>> column_mass(make_cost(x, x, valid_weights=[1.0, 3.0])).tolist()
    [0.25, 0.75]
    """
    if cost.mass is None:
        return None
    mass = np.asarray(cost.mass, np.float64)
    return mass / mass.sum()


def some_rows(cost: Cost, rows: Int[AnyArray, " rows"]) -> Cost:
    """Return the cost of some training rows alone, spread anew over the devices.

    Args:
        cost: C as factors.
        rows: Row numbers, at least one.

    >>> x = np.array([[0.0], [4.0]])
    >>> cost_rows(some_rows(make_cost(x, x), np.array([1])), jnp.array([0])).tolist()
    [[1.0, 0.0]]
    """
    return cost._replace(
        train=shard_rows(np.asarray(train_rows(cost, rows)), cost.tiling.mesh),
        reward=jnp.asarray(cost.reward)[rows],
        matrix=None,
        row_means=None,
    )


def exact_cost(
    cost: Cost, rows: Int[AnyArray, " rows"]
) -> Float[np.ndarray, "rows valid"]:
    """Compute rows of C in float64 on the host, for reported and certified values.

    A distance that its own rounding could feign is zero, so that copies of a point are
    at distance zero.

    Args:
        cost: C as factors.
        rows: Row numbers, at least one.

    Returns:
        Shape [rows, M], in the units of C.

    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> exact_cost(cost, np.array([2])).tolist()
    [[1.0, 1.0, 0.0]]
    """
    # Lengths are rounded up to powers of two, so that few programs are compiled.
    padded = np.resize(rows, 1 << (len(rows) - 1).bit_length())
    x = np.asarray(train_rows(cost, padded), np.float64)[: len(rows)]
    # Rounded as `cost.valid` is.
    x = (x - np.asarray(cost.centre)).astype(np.float32).astype(np.float64)
    y = np.asarray(cost.valid, np.float64)
    # In place: matrices of this size are most of the memory of a selection.
    entries = -2 * x @ y.T
    squares = (x * x).sum(1)
    entries += squares[:, None]
    entries += (y * y).sum(1)
    # |x|^2 + |y|^2 - 2 x.y is off by (dim + 2) u (|x| + |y|)^2 at most (Higham, 2002,
    # Sec. 3.1), with u = 2^-53, and |y| is |x| where the distance is near zero.
    rounding = 4 * (x.shape[1] + 4) * 2.0**-53 * squares
    entries[entries <= rounding[:, None]] = 0
    np.sqrt(entries, out=entries)
    entries /= float(cost.distance_scale)
    entries -= np.asarray(cost.reward, np.float64)[rows][:, None]
    return entries


@jax.jit
def nearest_distances(cost: Cost) -> Float[jax.Array, " train"]:
    """Compute the distance of every training row to its nearest validation point.

    It is min_j D_ij, in the units of the embeddings, shape [N].

    >>> x, y = np.array([[0.0], [3.0]]), np.array([[1.0]])
    >>> nearest_distances(make_cost(x, y)).tolist()
    [1.0, 2.0]
    """
    plain = without_reward(cost)
    return map_rows(plain, lambda block: block.cost.min(1)) * cost.distance_scale


def _reward(
    scores: GivenArray | None, lambda_: float, n_train: int
) -> Float[np.ndarray, " train"]:
    if scores is None or lambda_ == 0:
        return np.zeros(n_train, np.float32)
    r = np.asarray(as_array(scores), np.float64)
    return (lambda_ * r / np.abs(r).max()).astype(np.float32)


@partial(jax.jit, static_argnames="entries")
def median_distance(cost: Cost, entries: int = MEDIAN_ENTRIES) -> Float[jax.Array, ""]:
    """Return the median of D, in the units of the cost.

    Args:
        cost: C as factors; its reward is not read.
        entries: Where D has more of them, it is the median over evenly spaced rows,
            with this many entries.

    >>> median_distance(make_cost(np.array([[1.0], [2.0], [4.0]]), np.zeros((1, 1))))
    Array(0.5, dtype=float32)
    """
    n_train, n_valid = cost.shape
    size = max(1, min(n_train, entries // n_valid))
    rows = np.arange(size) * n_train // size
    return jnp.median(cost_rows(without_reward(cost), rows))


def largest_distance(cost: Cost) -> float:
    """Compute max(D) in the units of C, in which it is 1 unless the median is.

    Where all points coincide it is taken as 1.

    >>> x = np.array([[0.0], [1.0], [4.0]])
    >>> [largest_distance(make_cost(x, x, scale=s)) for s in ("max", "median")]
    [1.0, 4.0]
    """
    return float(_largest_and_means(without_reward(cost))[0]) or 1.0


def row_means(cost: Cost) -> Float[jax.Array, " train"]:
    """Return the mean distance of every training row to the validation points.

    It is sum_j b_j D_ij in the units of C, shape [N], on every device. `make_cost` has
    it from its only pass; for a part of a cost a pass is made.

    >>> x = np.array([[0.0], [4.0]])
    >>> row_means(make_cost(x, x, valid_weights=[1.0, 3.0])).tolist()
    [0.75, 0.25]
    """
    if cost.row_means is not None:
        return jnp.asarray(cost.row_means)
    return _largest_and_means(without_reward(cost))[1]


@jax.jit
def _largest_and_means(
    cost: Cost,
) -> tuple[Float[jax.Array, ""], Float[jax.Array, " train"]]:
    """Return max_ij C_ij, and sum_j b_j C_ij of every row on every device."""

    def of(block: Block) -> jax.Array:
        d = block.cost
        mean = d.mean(1) if cost.mass is None else (d * cost.mass).sum(1)
        return jnp.stack([d.max(1), mean], 1)

    largest, mean = map_rows(cost, of).T
    return largest.max(), replicated(mean, cost.tiling.mesh)
