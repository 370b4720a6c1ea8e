"""The cost matrix of POO, computed in blocks of training rows and never held whole.

C_ij = D_ij / max(D) - lambda * g_i / max(g)      (GORACS, Mei et al., KDD 2025)

Floor of one pass over the matrix: 2 N M dim FLOPs; the inputs are read once.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.errors import InputError
from goracs_jax.shapes import AnyArray, GradNorms, Train, Valid

Carry = TypeVar("Carry")

# A block of C takes at most this many entries (64 MiB in float32).
BLOCK_ENTRIES = 1 << 24
# float32 keeps 4 digits of a distance beside a reward of this size.
LAMBDA_MAX = 1000


class Cost(NamedTuple):
    """C, held as its factors: N x dim + M x dim numbers instead of N x M."""

    train: Train
    valid: Valid
    reward: GradNorms  # lambda * g_i / max(g)
    distance_max: Float[AnyArray, ""]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M)."""
        return self.train.shape[0], self.valid.shape[0]


class Block(NamedTuple):
    """Some consecutive rows of C."""

    rows: Int[jax.Array, " block"]
    # The last block starts early to keep its shape; rows it repeats are not fresh.
    fresh: Bool[jax.Array, " block"]
    cost: Float[jax.Array, "block valid"]


def distances(
    x: Float[jax.Array, "rows dim"], y: Float[jax.Array, "cols dim"]
) -> Float[jax.Array, "rows cols"]:
    """Euclidean distances D_ij = ||x_i - y_j||_2, as one matrix product.

    The product runs at HIGHEST precision: TPU and GPU would otherwise round its
    inputs to bfloat16 or TF32. The cancellation in |x|^2 + |y|^2 - 2 x.y leaves an
    error of about 4e-4 |x| where x_i = y_j; `exact_cost` has none.

    >>> distances(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])).tolist()
    [[5.0]]
    """
    products = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    squared = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :] - 2 * products
    return jnp.sqrt(jnp.maximum(squared, 0))


def cost_rows(
    cost: Cost, rows: Int[AnyArray, " rows"]
) -> Float[jax.Array, "rows valid"]:
    """Rows of C in float32 on the device.

    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> cost_rows(cost, jnp.array([1])).round(3).tolist()
    [[1.0, 0.0, 1.0]]
    """
    scaled = distances(cost.train[rows], jnp.asarray(cost.valid)) / cost.distance_max
    return scaled - cost.reward[rows][:, None]


def exact_cost(
    cost: Cost, rows: Int[AnyArray, " rows"]
) -> Float[np.ndarray, "rows valid"]:
    """Rows of C in float64 on the host, for values that are reported or certified.

    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> exact_cost(cost, np.array([2])).tolist()
    [[1.0, 1.0, 0.0]]
    """
    x = np.asarray(cost.train[rows], np.float64)
    y = np.asarray(cost.valid, np.float64)
    squared = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :] - 2 * (x @ y.T)
    scaled = np.sqrt(np.maximum(squared, 0)) / float(cost.distance_max)
    return scaled - np.asarray(cost.reward[rows], np.float64)[:, None]


def block_rows(cost: Cost, width: int = 1) -> int:
    """How many rows of C one block holds: a function of the shapes alone.

    Args:
        cost: C as factors.
        width: Numbers a row that a step keeps beside its M costs, if more than M.
    """
    n_train, n_valid = cost.shape
    return max(1, min(n_train, BLOCK_ENTRIES // max(n_valid, width)))


def fold_rows(
    cost: Cost, init: Carry, step: Callable[[Carry, Block], Carry], width: int = 1
) -> Carry:
    """Fold `step` over all rows of C, a block at a time, in one `lax.scan`.

    Args:
        cost: C as factors.
        init: The carry before the first block.
        step: Pure function of the carry and a `Block`.
        width: As for `block_rows`.

    Returns:
        The carry after the last block.

    >>> cost = make_cost(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    >>> fold_rows(cost, 0, lambda seen, block: seen + block.fresh.sum()).item()
    3
    """
    n_train, _ = cost.shape
    size = block_rows(cost, width)

    def body(carry: Carry, first: jax.Array) -> tuple[Carry, None]:
        rows = jnp.minimum(first, n_train - size) + jnp.arange(size)
        return step(carry, Block(rows, rows >= first, cost_rows(cost, rows))), None

    carry, _ = jax.lax.scan(body, init, jnp.arange(0, n_train, size))
    return carry


@jax.jit
def _largest_distance(cost: Cost) -> Float[jax.Array, ""]:
    # C of a cost with no reward and unit scale is D itself.
    return fold_rows(
        cost, jnp.float32(0), lambda d, block: jnp.maximum(d, block.cost.max())
    )


@jax.jit
def nearest_distances(cost: Cost) -> Float[jax.Array, " train"]:
    """Distance of every training row to its nearest validation point, min_j D_ij.

    >>> x, y = np.array([[0.0], [3.0]]), np.array([[1.0]])
    >>> nearest_distances(make_cost(x, y)).tolist()
    [1.0, 2.0]
    """
    n_train, _ = cost.shape
    no_reward = cost._replace(reward=jnp.zeros(n_train))
    keep = lambda out, block: out.at[block.rows].set(block.cost.min(1))
    return fold_rows(no_reward, jnp.zeros(n_train), keep) * cost.distance_max


def make_cost(
    train: AnyArray,
    valid: AnyArray,
    grad_norms: AnyArray | None = None,
    lambda_: float = 0.0,
) -> Cost:
    """C of two sets of embeddings: C_ij = D_ij / max(D) - lambda * g_i / max(g).

    Args:
        train: x_i, shape [N, dim].
        valid: y_j, shape [M, dim].
        grad_norms: g_i >= 0, shape [N]; may be left out when lambda is 0.
        lambda_: Weight of the gradient term, in units of the largest distance.

    Returns:
        The cost, on the default device. Both sets are centred on the validation mean
        before they become float32: distances stay and keep more of their digits. Where
        all points coincide, max(D) is taken as 1 (D is zero whatever the scale).

    Raises:
        InputError: As `check_inputs`; or embeddings so large or so close together that
            float32 cannot hold their squared distances.

    >>> cost = make_cost(np.zeros((2, 1)), np.ones((1, 1)), np.array([1.0, 2.0]), 0.5)
    >>> cost_rows(cost, jnp.arange(2)).tolist()
    [[0.75], [0.5]]
    """
    train, valid = np.asarray(train), np.asarray(valid)
    check_inputs(train, valid, grad_norms, lambda_)
    wide = np.result_type(train, valid, np.float32)
    centre = valid.mean(0, dtype=np.float64).astype(wide)
    x, y = (points.astype(wide) - centre for points in (train, valid))
    reach = max(np.abs(x).max(), np.abs(y).max())
    if reach and not 1e-15 < reach < 1e15:
        raise InputError(
            f"embeddings lie up to {reach:.1e} from their mean, and squared distances "
            "must fit float32: rescale both sets to a reach between 1e-15 and 1e15."
        )
    cost = Cost(
        train=jnp.asarray(x, jnp.float32),
        valid=jnp.asarray(y, jnp.float32),
        reward=jnp.asarray(_reward(grad_norms, lambda_, len(train))),
        distance_max=jnp.float32(1),
    )
    largest = _largest_distance(cost._replace(reward=jnp.zeros(len(train))))
    return cost._replace(distance_max=jnp.where(largest > 0, largest, 1.0))


def with_lambda(cost: Cost, grad_norms: AnyArray | None, lambda_: float) -> Cost:
    """The same distances and another lambda: no pass over C is needed.

    Args:
        cost: C as factors, for any lambda.
        grad_norms: As for `make_cost`.
        lambda_: As for `make_cost`.

    Returns:
        What `make_cost` gives for this lambda.

    Raises:
        InputError: A lambda or norms that `make_cost` refuses.

    >>> x, g = np.array([[0.0], [1.0]]), np.array([1.0, 2.0])
    >>> with_lambda(make_cost(x, x), g, 0.5).reward.tolist()
    [0.25, 0.5]
    """
    n_train, _ = cost.shape
    check_lambda(lambda_)
    _check_norms(grad_norms, lambda_, n_train)
    return cost._replace(reward=jnp.asarray(_reward(grad_norms, lambda_, n_train)))


def check_inputs(
    train: np.ndarray, valid: np.ndarray, grad_norms: AnyArray | None, lambda_: float
) -> None:
    """Refuse what no cost can be made of, in time linear in N and M.

    Raises:
        InputError: Shapes that do not fit, entries that are not finite, a negative
            gradient norm, a lambda out of range, or lambda > 0 without any positive
            norm.

    >>> check_inputs(np.ones((2, 3)), np.ones((2, 4)), None, 0.0)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: training embeddings have 3 dimensions, ...
    """
    _check_embeddings(train, "training embeddings")
    _check_embeddings(valid, "validation embeddings")
    if train.shape[1] != valid.shape[1]:
        raise InputError(
            f"training embeddings have {train.shape[1]} dimensions, validation "
            f"embeddings {valid.shape[1]}: embed both with the same model."
        )
    check_lambda(lambda_)
    _check_norms(grad_norms, lambda_, len(train))


def _check_norms(grad_norms: AnyArray | None, lambda_: float, n_train: int) -> None:
    if grad_norms is None:
        if lambda_ > 0:
            raise InputError(
                f"lambda {lambda_} needs gradient norms, got none: give them or set "
                "lambda to 0."
            )
        return
    norms = np.asarray(grad_norms, np.float64)
    if norms.shape != (n_train,):
        raise InputError(
            f"gradient norms have shape {list(norms.shape)}, the training embeddings "
            f"{n_train} rows: give one norm a row, in the same order."
        )
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms >= 0)))
    if len(bad):
        raise InputError(
            f"{len(bad)} gradient norms are negative, NaN or infinite, the first at "
            f"row {bad[0]} (from 0): {norms[bad[0]]}; compute those again."
        )
    if lambda_ > 0 and norms.max() == 0:
        raise InputError(
            "all gradient norms are zero, so lambda has nothing to weigh: check the "
            "adapter and the labels, or set lambda to 0."
        )


def check_lambda(lambda_: float) -> None:
    """Refuse a lambda that is negative, or beside which float32 loses the distances.

    >>> check_lambda(-0.1)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: lambda must be in [0, 1000], got -0.1.
    """
    if not 0 <= lambda_ <= LAMBDA_MAX:
        raise InputError(f"lambda must be in [0, {LAMBDA_MAX}], got {lambda_}.")


def _check_embeddings(x: np.ndarray, name: str) -> None:
    # bfloat16 is a float to JAX alone.
    if x.ndim != 2 or 0 in x.shape or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"{name} must be a matrix [rows, dim] of floats with at least one row, got "
            f"shape {list(x.shape)} of {x.dtype}: save one vector a row."
        )
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        raise InputError(
            f"{name} have {len(bad)} rows with NaN or infinity, the first is row "
            f"{bad[0]} (from 0): embed those again or drop them."
        )


def _reward(
    grad_norms: AnyArray | None, lambda_: float, n_train: int
) -> Float[np.ndarray, " train"]:
    if grad_norms is None or lambda_ == 0:
        return np.zeros(n_train, np.float32)
    norms = np.asarray(grad_norms, np.float64)
    return (lambda_ * norms / norms.max()).astype(np.float32)
