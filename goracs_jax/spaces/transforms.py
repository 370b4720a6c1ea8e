r"""Transforms of embeddings that are fitted on the validation rows and applied to both.

Where nearly all variance lies in a few directions, they decide every distance. With the
mean m of the validation rows y_j and the singular value decomposition

    Y - m = U diag(s) V',     v_k = s_k^2 / M   (variances, largest first),

each transform maps a row x to T(x - m), with a matrix T that is symmetric or has few
rows. Distances are those between such rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from goracs_jax.errors import InputError
from goracs_jax.shapes import AnyArray

# The most numbers of a pool that are in memory in float64 at one time.
CHUNK = 1 << 24


class Fitted(NamedTuple):
    """A fitted transform, x -> T (x - mean); see `transform`.

    With a `rest`, T = rest I + V diag(gains - rest) V', so that the directions in which
    the fitted rows do not vary are kept, too. Without one, T = diag(gains) V'.
    """

    mean: Float[np.ndarray, " dim"]
    directions: Float[np.ndarray, "dim k"]  # V
    gains: Float[np.ndarray, " k"]
    rest: float | None

    def transform(self, x: AnyArray) -> Float32[np.ndarray, "rows out"]:
        """Transform rows, computed in float64, a part of them at a time.

        Args:
            x: AnyArray of the width that was fitted; they may lie on disk.

        Returns:
            Rows of `dim` numbers, or of k where there is no `rest`.

        Raises:
            InputError: The rows have another width.
        """
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise InputError(
                f"rows to transform have shape {list(x.shape)}, those that were fitted "
                f"{len(self.mean)} numbers each: take both from the same model."
            )
        width = self.gains.size if self.rest is None else x.shape[1]
        found = np.empty((len(x), width), np.float32)
        for part in _parts(len(x), x.shape[1]):
            z = np.asarray(x[part], np.float64) - self.mean
            along = z @ self.directions
            if self.rest is None:
                found[part] = along * self.gains
            else:
                change = along * (self.gains - self.rest)
                found[part] = self.rest * z + change @ self.directions.T
        return found


@runtime_checkable
class Transform(Protocol):
    """A transform that can be fitted."""

    def fit(self, valid: AnyArray) -> Fitted:
        """Fit the transform on validation rows."""
        ...


@dataclass(frozen=True)
class Center:
    """Take off the mean: T = I. Distances stay what they are, cosines do not.

    >>> Center().fit(np.array([[1.0, 0.0], [3.0, 0.0]])).transform(np.eye(2)).tolist()
    [[-1.0, 0.0], [-2.0, 1.0]]
    """

    def fit(self, valid: AnyArray) -> Fitted:
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

    def fit(self, valid: AnyArray) -> Fitted:
        """Fit mean and covariance of the validation rows, [M, dim].

        Raises:
            InputError: All rows are the same.
        """
        mean, variances, directions = _principal(valid)
        a, v = _shrinkage(np.asarray(valid, np.float64) - mean, variances)
        gains = ((1 - a) * variances + a * v) ** -0.5
        # With as many directions as numbers nothing is left, whatever its gain.
        return Fitted(mean, directions, gains, float((a * v) ** -0.5) if a else 0.0)


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

    def fit(self, valid: AnyArray) -> Fitted:
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

    def fit(self, valid: AnyArray) -> Fitted:
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


def unit_rows(x: AnyArray) -> Float32[np.ndarray, "rows dim"]:
    """Scale every row to length 1, so that || x - y ||^2 = 2 - 2 cos(x, y).

    Raises:
        InputError: A row is zero, and so has no direction.

    >>> unit_rows(np.array([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    lengths = np.linalg.norm(np.asarray(x, np.float64), axis=1)
    (zero,) = np.nonzero(lengths == 0)
    if len(zero):
        raise InputError(
            f"{len(zero)} rows are zero, the first is row {zero[0]} (from 0), and have "
            "no direction: take the euclidean metric, or another transform."
        )
    return (np.asarray(x) / lengths[:, None]).astype(np.float32)


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
    if name in counted and k.isdecimal() and int(k):
        return counted[name](int(k))
    raise InputError(
        f"a transform is none, center, whiten, subspace:K or drop:K with a positive "
        f"integer K, got {text!r}."
    )


def _checked(valid: AnyArray) -> Float[np.ndarray, "valid dim"]:
    y = np.asarray(valid, np.float64)
    if y.ndim != 2 or not y.size or not np.isfinite(y).all():
        raise InputError(
            "a transform is fitted on a matrix [rows, dim] of finite numbers, got "
            f"shape {list(y.shape)}."
        )
    return y


def _principal(valid: AnyArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean, the variances above rounding, and their directions [dim, k]."""
    y = _checked(valid)
    mean = y.mean(axis=0)
    _, s, directions = np.linalg.svd(y - mean, full_matrices=False)
    # float32 embeddings have rounding of this size in every direction.
    count = int(np.sum(s > s[0] * max(y.shape) * np.finfo(np.float32).eps))
    if not s[0] or not count:
        raise InputError(
            f"the {len(y)} validation rows are all the same, so no direction stands "
            "out: give more rows, or --transform none."
        )
    return mean, s[:count] ** 2 / len(y), directions[:count].T


def _leading(valid: AnyArray, k: int, name: str) -> tuple[np.ndarray, ...]:
    mean, variances, directions = _principal(valid)
    if not 1 <= k <= len(variances):
        raise InputError(
            f"{name}:{k} needs {k} directions, the {len(valid)} validation rows vary "
            f"in {len(variances)}: give a number from 1 to that."
        )
    return mean, variances, directions[:, :k]


def _shrinkage(z: np.ndarray, variances: np.ndarray) -> tuple[float, float]:
    """Return Ledoit and Wolf's a, and the mean variance v.

    With rows z_j, a = min(1, b / d), where d = || cov - v I ||^2 / dim and
    b = sum_j || z_j z_j' - cov ||^2 / (M^2 dim), in Frobenius norms.
    """
    count, dim = z.shape
    v = float(variances.sum() / dim)
    squared = float(np.sum(variances**2))  # of cov
    d = squared / dim - v**2
    fourth = np.sum(np.sum(z * z, axis=1) ** 2)
    b = float(fourth / count - squared) / (count * dim)
    return (min(1.0, b / d) if d > 0 else 1.0), v


def _parts(rows: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, width))
    return (slice(first, first + step) for first in range(0, rows, step))
