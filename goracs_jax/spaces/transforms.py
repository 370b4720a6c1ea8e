r"""Transforms of embeddings that are fitted on the validation rows and applied to both.

Where nearly all variance lies in a few directions, they decide every distance. With the
mean m of the validation rows y_j and the singular value decomposition

    Y - m = U diag(s) V',     v_k = s_k^2 / M   (variances, largest first),

each transform maps a row x to T(x - m), with a matrix T that is symmetric or has few
rows. Distances are those between such rows.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from goracs_jax.cost import chunks
from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_array
from goracs_jax.shapes import GivenArray

# Embeddings are float32: what is smaller, beside what it is the rest of, is rounding.
ROUNDING = float(np.finfo(np.float32).eps)


class Fitted(NamedTuple):
    """A fitted transform, x -> T (x - mean); see `transform`.

    With a `rest`, T = rest I + V diag(gains - rest) V', so that the directions in which
    the fitted rows do not vary are kept, too. Without one, T = diag(gains) V'.
    """

    mean: Float[np.ndarray, " dim"]
    directions: Float[np.ndarray, "dim k"]  # V
    gains: Float[np.ndarray, " k"]
    rest: float | None

    def transform(self, x: GivenArray) -> Float32[np.ndarray, "rows out"]:
        """Transform rows, computed in float64, a part of them at a time.

        Args:
            x: Rows of the width that was fitted; they may lie on disk.

        Returns:
            Rows of `dim` numbers, or of k where there is no `rest`. A row of which
            nothing but rounding is left is zero.

        Raises:
            InputError: The rows have another width.
        """
        x = as_array(x, "rows to transform")
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise InputError(
                f"rows to transform have shape {list(x.shape)}, those that were fitted "
                f"{len(self.mean)} numbers each: take both from the same model."
            )
        width = self.gains.size if self.rest is None else x.shape[1]
        dropped = self.rest is None or (self.gains.size and not self.gains.any())

        def change(rows: np.ndarray, _: int) -> np.ndarray:
            z = rows - self.mean
            along = z @ self.directions
            if self.rest is None:
                out = along * self.gains
            else:
                more = along * (self.gains - self.rest)
                out = self.rest * z + more @ self.directions.T
            left = np.linalg.norm(out if dropped else z, axis=1)
            out[left <= ROUNDING * np.linalg.norm(rows, axis=1)] = 0.0
            return out

        return _by_parts(change, x, width)


@runtime_checkable
class Transform(Protocol):
    """A transform that can be fitted."""

    def fit(self, valid: GivenArray) -> Fitted:
        """Fit the transform on validation rows."""
        ...


@dataclass(frozen=True)
class Center:
    """Take off the mean: T = I. Distances stay what they are, cosines do not.

    >>> Center().fit(np.array([[1.0, 0.0], [3.0, 0.0]])).transform(np.eye(2)).tolist()
    [[-1.0, 0.0], [-2.0, 1.0]]
    """

    def fit(self, valid: GivenArray) -> Fitted:
        """Fit the mean of the validation rows, [M, dim]."""
        mean = _checked(valid).mean(axis=0)
        return Fitted(mean, np.empty((len(mean), 0)), np.empty(0), 1.0)


@dataclass(frozen=True)
class Whiten:
    r"""Give every direction the same variance, as TAROT (ICML 2025) does.

    T = S^{-1/2} with the covariance of the validation rows, shrunk as Ledoit and Wolf
    (2004) derive, S = (1 - a) cov + a v I, where v is the mean variance. So the
    directions in which few rows vary are not blown up.

    >>> y = np.array([[4.0, 0.0], [-4.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> white = Whiten().fit(y).transform(y)
    >>> bool(np.ptp(white[:, 0]) / np.ptp(white[:, 1]) < 4)
    True
    """

    def fit(self, valid: GivenArray) -> Fitted:
        """Fit mean and covariance of the validation rows, [M, dim].

        Raises:
            InputError: All rows are the same, or they are so few that nothing says how
                much other directions vary.
        """
        from sklearn.covariance import ledoit_wolf_shrinkage  # slow to import

        y = _checked(valid)
        mean = y.mean(axis=0)
        _, s, directions = np.linalg.svd(y - mean, full_matrices=False)
        variances = s**2 / len(y)
        one = len(y) == 1  # of which scikit-learn warns
        a = 0.0 if one else ledoit_wolf_shrinkage(y - mean, assume_centered=True)
        v = float(variances.sum() / y.shape[1])
        shrunk = (1 - a) * variances + a * v
        # Where there are as many directions as numbers, there is no other.
        others = a * v if len(s) < y.shape[1] else shrunk[-1]
        if min(others, shrunk[-1]) <= ROUNDING**2 * shrunk[0]:
            raise InputError(
                f"{len(y)} validation rows do not tell how much all directions vary: "
                "give more rows that differ, or do not whiten."
            )
        return Fitted(mean, directions.T, shrunk**-0.5, float(others**-0.5))


@dataclass(frozen=True)
class Subspace:
    """Keep the K leading directions alone, as GIST (ICML 2026) does: T = V_K'.

    Args:
        k: Number of directions.

    >>> y = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> np.abs(Subspace(1).fit(y).transform(y)).ravel().tolist()
    [2.0, 2.0, 0.0, 0.0]
    """

    k: int

    def __post_init__(self):
        _check_k(self.k)

    def fit(self, valid: GivenArray) -> Fitted:
        """Fit the leading directions of the validation rows, [M, dim].

        Raises:
            InputError: The rows vary in fewer directions.
        """
        mean, _, directions = _leading(valid, self.k, "subspace")
        return Fitted(mean, directions, np.ones(self.k), None)


@dataclass(frozen=True)
class Drop:
    """Take the K leading directions out: T = I - V_K V_K'.

    Args:
        k: Number of directions.

    >>> y = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> np.abs(Drop(1).fit(y).transform(y)).round(6).tolist()
    [[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """

    k: int

    def __post_init__(self):
        _check_k(self.k)

    def fit(self, valid: GivenArray) -> Fitted:
        """Fit the leading directions of the validation rows, [M, dim].

        Raises:
            InputError: The rows vary in fewer directions, or in no more.
        """
        mean, variances, directions = _leading(valid, self.k, "drop")
        if self.k == len(variances):
            raise InputError(
                f"drop:{self.k} leaves nothing: the {len(valid)} validation rows vary "
                f"in {len(variances)} directions; drop fewer."
            )
        return Fitted(mean, directions, np.zeros(self.k), 1.0)


def unit_rows(x: GivenArray, name: str = "rows") -> Float32[np.ndarray, "rows dim"]:
    """Scale every row to length 1, so that || x - y ||^2 = 2 - 2 cos(x, y).

    Args:
        x: Rows, shape [rows, dim]; they may lie on disk.
        name: What they are, for messages.

    Raises:
        InputError: A row is zero, and so has no direction, or is not finite.

    >>> unit_rows(np.array([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    x = as_array(x, name)
    if x.ndim != 2:
        raise InputError(f"{name} must be a matrix [rows, dim], got {list(x.shape)}.")
    if x.dtype == np.uint8:
        raise InputError(
            f"{name} are uint8, whose zero is not the origin, and have no direction: "
            "give floats, or take the euclidean metric."
        )

    def scale(rows: np.ndarray, first: int) -> np.ndarray:
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        (bad,) = np.nonzero(~((lengths[:, 0] > 0) & np.isfinite(lengths[:, 0])))
        if len(bad):
            raise InputError(
                f"row {first + bad[0]} (from 0) of the {name} is zero or not "
                "finite, and has no direction: leave such rows out, or take the "
                "euclidean metric."
            )
        return rows / lengths

    return _by_parts(scale, x, x.shape[1])


def transform_of(text: str) -> Transform | None:
    """Read the name of a transform: none, center, whiten, subspace:K or drop:K.

    Raises:
        InputError: There is no such transform, or K is not a positive integer.

    >>> transform_of("none"), transform_of("drop:2")
    (None, Drop(k=2))
    """
    name, colon, k = text.partition(":")
    plain = {"none": None, "center": Center(), "whiten": Whiten()}
    if name in plain and not colon:
        return plain[name]
    counted = {"subspace": Subspace, "drop": Drop}
    if name in counted and re.fullmatch("[1-9][0-9]{0,8}", k):
        return counted[name](int(k))
    raise InputError(
        f"a transform is none, center, whiten, subspace:K or drop:K with a positive "
        f"integer K, got {text!r}."
    )


def _check_k(k: object) -> None:
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise InputError(f"k must be a positive integer, got {k!r}.")


def _checked(valid: GivenArray) -> Float[np.ndarray, "valid dim"]:
    y = np.asarray(as_array(valid, "validation rows"), np.float64)
    if y.ndim != 2 or not y.size or not np.isfinite(y).all():
        raise InputError(
            "a transform is fitted on a matrix [rows, dim] of finite numbers, got "
            f"shape {list(y.shape)}."
        )
    return y


def _principal(valid: GivenArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean, the variances above rounding, and their directions [dim, k]."""
    y = _checked(valid)
    mean = y.mean(axis=0)
    _, s, directions = np.linalg.svd(y - mean, full_matrices=False)
    # Rounding alone, a share of the largest number in each of [M, dim] numbers, has
    # singular values up to this.
    noise = ROUNDING * np.abs(y).max() * (len(y) ** 0.5 + y.shape[1] ** 0.5)
    count = int(np.sum(s > noise))
    if not count:
        raise InputError(
            f"validation rows ({len(y)}) are all the same, so no direction stands out: "
            "give more of them, or take no transform."
        )
    return mean, s[:count] ** 2 / len(y), directions[:count].T


def _leading(valid: GivenArray, k: int, name: str) -> tuple[np.ndarray, ...]:
    mean, variances, directions = _principal(valid)
    if k > len(variances):
        raise InputError(
            f"{name}:{k} needs {k} directions, the {len(valid)} validation rows vary "
            f"in {len(variances)}: give a number from 1 to that."
        )
    return mean, variances, directions[:, :k]


def _by_parts(
    transform: Callable[[np.ndarray, int], np.ndarray], x: np.ndarray, width: int
) -> Float32[np.ndarray, "rows width"]:
    """Apply a function of rows in float64, and of their first number, part by part."""
    found, first = np.empty((len(x), width), np.float32), 0
    for part in chunks(x):
        rows = slice(first, first + len(part))
        found[rows] = transform(np.asarray(part, np.float64), first)
        first = rows.stop
    return found
