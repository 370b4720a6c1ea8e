"""The few directions in which the validation rows lie, such as their gradients."""

import numpy as np
from jaxtyping import Float32

from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_array
from goracs_jax.shapes import AnyArray, Valid

#: Share of the squared lengths that directions must hold where their number is not
#: given. One direction, that of the answer's first token, often holds 95 %.
ENERGY = 0.99


def leading_directions(
    gradients: Valid, k: int | None = None, *, energy: float = ENERGY
) -> Float32[np.ndarray, "dim k"]:
    r"""Find the subspace of the validation gradients, as GIST (ICML 2026) does.

    With the singular value decomposition G = U diag(s) V', the first k columns of V are
    the orthonormal basis that keeps most of the gradients' squared lengths. The mean is
    not taken off first: it is the direction in which the mean loss falls fastest. (The
    transform `goracs_jax.Subspace` does take it off.)

    Args:
        gradients: One gradient, or its projection, per row: G, shape [M, dim].
        k: Number of directions; by default the fewest that hold the share `energy` of
            all squared lengths, sum_{l <= k} s_l^2 / sum_l s_l^2, and at least two,
            since in one direction all cosines are 1 or -1.
        energy: This share, above 0 and at most 1.

    Raises:
        InputError: The gradients are not finite or all zero, they lie in fewer than k
            directions, or a number is out of range.

    >>> g = np.array([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.1]], np.float32)
    >>> np.abs(leading_directions(g)).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    rows = np.asarray(as_array(gradients, "gradients"), np.float64)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise InputError(
            "directions are found in a matrix [rows, dim] of finite numbers, got shape "
            f"{list(rows.shape)}."
        )
    if not 0 < energy <= 1:
        raise InputError(
            f"the share of energy must be above 0 and at most 1, got {energy}."
        )
    if k is not None and k < 1:
        raise InputError(f"k must be a positive integer, got {k}.")
    _, s, directions = np.linalg.svd(rows, full_matrices=False)
    # The numbers have the rounding of float32, whose singular values end about here.
    noise = np.finfo(np.float32).eps * s[0] * max(rows.shape) ** 0.5
    count = int(np.sum(s > noise))
    if count < (k or 1):
        raise InputError(
            f"the {len(rows)} validation gradients lie in {count} directions, fewer "
            f"than {k or 1}: give a smaller number, or more rows that differ."
        )
    if k is None:
        held = np.cumsum(s**2) / np.sum(s**2)
        # Rounding may leave the last share below 1.
        enough = int(np.sum(held < min(energy, held[-1]))) + 1
        k = min(max(enough, 2), count)
    return directions[:k].T.astype(np.float32)


def coordinates(
    gradients: AnyArray, directions: Float32[np.ndarray, "dim k"]
) -> Float32[np.ndarray, "rows k"]:
    """Return the coordinates of rows [rows, dim] in a basis, G V.

    >>> basis = np.array([[0.0], [1.0]], np.float32)
    >>> coordinates(np.array([[3.0, 4.0]]), basis).tolist()
    [[4.0]]
    """
    wide = np.asarray(gradients, np.float64)
    return (wide @ directions.astype(np.float64)).astype(np.float32)
