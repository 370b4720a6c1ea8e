"""Rows that a run uses, with their numbers among all rows of the file."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from goracs_jax.files import digest


class Kept(NamedTuple):
    """The rows of a file that are used: all, or without some that are left out."""

    rows: Int[np.ndarray, " kept"]
    of: int  # rows of the whole file

    @classmethod
    def all(cls, of: int) -> "Kept":
        """Keep all rows."""
        return cls(np.arange(of), of)

    @classmethod
    def where(cls, stay: Bool[np.ndarray, " rows"]) -> "Kept":
        """Keep the rows that are marked."""
        return cls(np.flatnonzero(stay), len(stay))

    @property
    def is_all(self) -> bool:
        """Whether no row was left out."""
        return len(self.rows) == self.of

    @property
    def identity(self) -> dict[str, str]:
        """What names the stages of a choice among them; nothing if they are all."""
        return {} if self.is_all else {"kept": digest(self.rows.tolist())}

    def then(self, inner: "Kept") -> "Kept":
        """Return the rows of the file that are left when more are taken out.

        Args:
            inner: Which of these rows stay.

        >>> Kept(np.array([1, 3, 4]), 5).then(Kept(np.array([0, 2]), 3)).rows
        array([1, 4])
        """
        return Kept(self.rows[inner.rows], self.of)

    def take(self, values: np.ndarray) -> np.ndarray:
        """Take the values of these rows."""
        return values if self.is_all else values[self.rows]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Put the values of these rows into the order of the whole file, NaN between.

        >>> Kept(np.array([0, 2]), 3).spread(np.array([1.0, 3.0])).tolist()
        [1.0, nan, 3.0]
        """
        if self.is_all:
            return values
        whole = np.full((self.of, *values.shape[1:]), np.nan, values.dtype)
        whole[self.rows] = values
        return whole
