"""Checks of embeddings, gradient norms and lambda, in time linear in N and M.

Embeddings are read in chunks: they may be larger than the memory.
"""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_array
from goracs_jax.shapes import GivenArray

# float32 keeps 4 digits of a distance beside a reward of this size.
LAMBDA_MAX = 1000
#: Types of quantised embeddings, whose distances are those of the integers.
QUANTISED = {np.dtype(np.int8), np.dtype(np.uint8)}
# The most numbers that are checked together: no temporary array is larger.
CHUNK = 1 << 22


def chunks(x: np.ndarray) -> Iterator[np.ndarray]:
    """Iterate over the rows of a matrix, CHUNK numbers at a time.

    >>> [len(part) for part in chunks(np.zeros((3, CHUNK // 2)))]
    [2, 1]
    """
    step = max(1, CHUNK // x.shape[1])
    return (x[first : first + step] for first in range(0, len(x), step))


def check_inputs(
    train: np.ndarray,
    valid: np.ndarray,
    grad_norms: GivenArray | None,
    lambda_: float,
    rewards: GivenArray | None = None,
) -> None:
    """Check embeddings, gradient norms or rewards, and lambda.

    Args:
        train: x_i, shape [N, dim].
        valid: y_j, shape [M, dim].
        grad_norms: g_i, shape [N], or None.
        lambda_: Weight of the gradient term.
        rewards: r_i, shape [N], instead of gradient norms.

    Raises:
        InputError: Shapes do not fit, an entry is not finite, a gradient norm is
            negative, lambda is out of range, or lambda > 0 has nothing to weigh.

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
    types = {train.dtype, valid.dtype}
    if types & QUANTISED and len(types) > 1:
        raise InputError(
            f"training embeddings are {train.dtype}, validation embeddings "
            f"{valid.dtype}: quantise both alike, or neither, since numbers of "
            "different units have no distance."
        )
    check_norms(grad_norms, lambda_, len(train), rewards)


def check_norms(
    grad_norms: GivenArray | None,
    lambda_: float,
    n_train: int,
    rewards: GivenArray | None = None,
) -> None:
    """Check lambda and the gradient norms or rewards that it weighs.

    >>> check_norms(None, 0.1, 2)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: lambda 0.1 needs gradient norms, got none: ...
    """
    check_lambda(lambda_)
    if rewards is not None:
        if grad_norms is not None:
            raise InputError(
                "give gradient norms or rewards, not both: rewards take the place of "
                "norms where lambda weighs them; methods that rank need norms."
            )
        check_row_scores(rewards, n_train, "rewards", signed=True)
        if lambda_ > 0 and not as_array(rewards).any():
            raise InputError(
                "all rewards are zero, so lambda has nothing to weigh: set it to 0."
            )
        return
    if grad_norms is None:
        if lambda_ > 0:
            raise InputError(
                f"lambda {lambda_} needs gradient norms, got none: give them, or other "
                "rewards, or set lambda to 0."
            )
        return
    check_row_scores(grad_norms, n_train, "gradient norms")
    if lambda_ > 0 and as_array(grad_norms).max() == 0:
        raise InputError(
            "all gradient norms are zero, so lambda has nothing to weigh: check the "
            "adapter and the labels, or set lambda to 0."
        )


def check_row_scores(
    scores: GivenArray,
    n_train: int,
    name: str,
    *,
    signed: bool = False,
    side: str = "training",
) -> None:
    """Check that each training row has one score, which is finite and not negative.

    Args:
        scores: Shape [N].
        n_train: N.
        name: What they are, for messages.
        signed: Whether a score may be negative.
        side: Whose rows they belong to, if not those of training.

    >>> check_row_scores(np.ones(3), 2, "errors")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: errors have shape [3], the training embeddings 2 ...
    """
    if np.iscomplexobj(scores):
        raise InputError(f"{name} must be real numbers, got {scores.dtype}.")
    given = as_array(scores, name)
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be real numbers, got {given.dtype}.") from None
    if values.shape != (n_train,):
        raise InputError(
            f"{name} have shape {list(values.shape)}, the {side} embeddings "
            f"{n_train} rows: give one number per row, in the same order."
        )
    bad = np.flatnonzero(~(np.isfinite(values) & (signed | (values >= 0))))
    if len(bad):
        raise InputError(
            f"{len(bad)} {name} are {'' if signed else 'negative, '}NaN or infinite, "
            "the first at "
            f"row {bad[0]} (from 0): {values[bad[0]]}; compute those again."
        )


def check_weights(
    weights: GivenArray, n_valid: int, name: str = "validation weights"
) -> None:
    """Check that each validation row has a weight, and that not all of them are zero.

    Args:
        weights: Shape [M].
        n_valid: M.
        name: What they are, for messages.

    >>> check_weights(np.zeros(2), 2)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: all validation weights are zero: ...
    """
    check_row_scores(weights, n_valid, name, side="validation")
    if not np.asarray(as_array(weights, name)).any():
        raise InputError(f"all {name} are zero: give some weight to a row.")


def check_lambda(lambda_: float) -> None:
    """Check that lambda is not negative, nor too large for distances in float32.

    >>> check_lambda(-0.1)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: lambda must be in [0, 1000], got -0.1.
    """
    if not 0 <= lambda_ <= LAMBDA_MAX:
        raise InputError(f"lambda must be in [0, {LAMBDA_MAX}], got {lambda_}.")


def _check_embeddings(x: np.ndarray, name: str) -> None:
    # bfloat16 is a float to JAX alone.
    numbers = jnp.issubdtype(x.dtype, jnp.floating) or x.dtype in QUANTISED
    if x.ndim != 2 or 0 in x.shape or not numbers:
        raise InputError(
            f"{name} must be a matrix [rows, dim] of floats with at least one row, or "
            f"of int8 or uint8, got shape {list(x.shape)} of {x.dtype}: save one "
            "vector per row."
        )
    bad = np.flatnonzero(
        np.concatenate([~np.isfinite(part).all(1) for part in chunks(x)])
    )
    if len(bad):
        raise InputError(
            f"{name} have {len(bad)} rows with NaN or infinity, the first is row "
            f"{bad[0]} (from 0): embed those again or drop them."
        )
