"""The chosen rows as a data source for grain, and for any trainer that reads one."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.files import digest
from goracs_jax.trainers.arguments import check_source, checked_count, form_of


class Subset:
    """The rows of a data source that were chosen, in the order of the indices.

    It has what grain asks of a `RandomAccessDataSource`: a length, rows by number, and
    a text that names it. Grain itself need not be installed.

    Args:
        source: The data source, with `__len__` and `__getitem__`.
        indices: The numbers of its rows, from 0. They count RAW rows, as the source
            gives them: a trainer that filters rows afterwards may drop some of them,
            and numbers that count filtered rows would name others.
        batch_size: The trainer's batch size, if it drops the last batch that is not
            full (grain's `drop_remainder=True`): fewer rows than this would be no step.

    Raises:
        InputError: The source has no length or is a mapping, an index is no row of it
            or comes twice, or the rows do not fill one batch.

    >>> coreset = Subset(["a", "b", "c", "d"], np.array([2, 0]))
    >>> len(coreset), coreset[0], list(coreset)
    (2, 'c', ['c', 'a'])
    """

    def __init__(self, source: Any, indices: Any, *, batch_size: int | None = None):
        check_source(source, "the source of a subset")
        if batch_size is not None:
            batch_size = checked_count("batch_size", batch_size)
        try:
            rows = np.asarray(indices)
        except ValueError:
            raise InputError(
                "indices must be one list of row numbers, got lists of several lengths."
            ) from None
        if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu":
            raise InputError(
                f"indices must be one list of row numbers, got {form_of(rows)}."
            )
        outside = rows[(rows < 0) | (rows >= len(source))]
        if len(outside):
            raise InputError(
                f"index {outside[0]} is no row of the source, which has {len(source)} "
                "rows: indices count its raw rows, from 0."
            )
        found, counts = np.unique(rows, return_counts=True)
        if (counts > 1).any():
            raise InputError(
                f"index {found[counts > 1][0]} is given {counts.max()} times: a subset "
                "has each row once."
            )
        if batch_size is not None and len(rows) < batch_size:
            raise InputError(
                f"batches of {batch_size} of which the last is dropped unless it is "
                f"full (drop_remainder) give 0 steps of {len(rows)} rows: take a "
                f"batch size of at most {len(rows)}, or keep the remainder."
            )
        self.source = source
        self.indices = rows.astype(np.int64)

    def __len__(self) -> int:
        """Return the number of chosen rows."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        """Return a chosen row by its place in the subset."""
        return self.source[int(self.indices[index])]

    def __iter__(self) -> Iterator[Any]:
        """Yield the chosen rows."""
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        """Name source and rows, by which grain knows its checkpoints again."""
        rows = digest(self.indices.tolist())[:16]
        return f"Subset({self.source!r}, {len(self)} rows {rows})"
