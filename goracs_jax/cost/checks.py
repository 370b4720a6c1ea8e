"""What a cost cannot be made of, refused in time linear in N and M, block by block."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.shapes import AnyArray

# float32 keeps 4 digits of a distance beside a reward of this size.
LAMBDA_MAX = 1000
# Numbers that are looked at together: no temporary array is larger.
CHUNK = 1 << 22


def chunks(x: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of a matrix, some at a time: it may be larger than the memory.

    >>> [len(part) for part in chunks(np.zeros((3, CHUNK // 2)))]
    [2, 1]
    """
    step = max(1, CHUNK // x.shape[1])
    return (x[first : first + step] for first in range(0, len(x), step))


def check_inputs(
    train: np.ndarray, valid: np.ndarray, grad_norms: AnyArray | None, lambda_: float
) -> None:
    """Refuse what no cost can be made of.

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
    check_norms(grad_norms, lambda_, len(train))


def check_norms(grad_norms: AnyArray | None, lambda_: float, n_train: int) -> None:
    """Refuse a lambda, and norms that it cannot weigh.

    >>> check_norms(None, 0.1, 2)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: lambda 0.1 needs gradient norms, got none: ...
    """
    check_lambda(lambda_)
    if grad_norms is None:
        if lambda_ > 0:
            raise InputError(
                f"lambda {lambda_} needs gradient norms, got none: give them or set "
                "lambda to 0."
            )
        return
    check_row_scores(grad_norms, n_train, "gradient norms")
    if lambda_ > 0 and np.max(grad_norms) == 0:
        raise InputError(
            "all gradient norms are zero, so lambda has nothing to weigh: check the "
            "adapter and the labels, or set lambda to 0."
        )


def check_row_scores(scores: AnyArray, n_train: int, name: str) -> None:
    """Refuse scores that are not one finite number, zero or more, a training row.

    >>> check_row_scores(np.ones(3), 2, "errors")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: errors have shape [3], the training embeddings 2 ...
    """
    values = np.asarray(scores, np.float64)
    if values.shape != (n_train,):
        raise InputError(
            f"{name} have shape {list(values.shape)}, the training embeddings "
            f"{n_train} rows: give one number a row, in the same order."
        )
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise InputError(
            f"{len(bad)} {name} are negative, NaN or infinite, the first at "
            f"row {bad[0]} (from 0): {values[bad[0]]}; compute those again."
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
    bad = np.flatnonzero(
        np.concatenate([~np.isfinite(part).all(1) for part in chunks(x)])
    )
    if len(bad):
        raise InputError(
            f"{name} have {len(bad)} rows with NaN or infinity, the first is row "
            f"{bad[0]} (from 0): embed those again or drop them."
        )
