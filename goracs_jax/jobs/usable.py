"""The rows of given arrays that can be used: finite in all, with a usable text."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from goracs_jax.cost.checks import chunks
from goracs_jax.data.skipped import Skipped
from goracs_jax.errors import InputError, RecordError
from goracs_jax.runs.kept import Kept
from goracs_jax.runs.opened import Pool
from goracs_jax.runs.say import say


def check_beside(pools: Mapping[str, tuple[Pool, int]]) -> None:
    """Check that texts have as many records as the arrays beside them have rows.

    Args:
        pools: The texts of each file of arrays, and the rows of it, by its name.

    Raises:
        InputError: They have not.
    """
    for embeddings, (pool, rows) in pools.items():
        if (of := pool.of_file.of) != rows:
            raise InputError(
                f"{pool.path} has {of} examples, {embeddings} {rows} rows: they must "
                "match."
            )


def usable_rows(
    arrays: Sequence[np.ndarray], pool: Pool | None, name: Path, skipped: Skipped
) -> Kept:
    """Find the rows that are finite in all arrays, and whose text was not left out.

    Args:
        arrays: One row, or one number, for each record.
        pool: The texts beside them, if they are given.
        name: The file of the first array, for messages.
        skipped: Where the rows go that are not finite and have a text.

    Raises:
        InputError: The arrays have different numbers of rows, or no row can be used.

    >>> x, g = np.ones((3, 2)), np.array([1.0, np.nan, 1.0])
    >>> usable_rows([x, g], None, Path("x.npy"), Skipped()).rows
    x.npy: 1 of 3 rows are left out: not finite
    array([0, 2])
    """
    of = len(arrays[0])
    stay = np.ones(of, bool)
    if pool:
        stay[:] = False
        stay[pool.of_file.rows] = True
    known = len(skipped.rows)
    for array in arrays:
        if len(array) != of:
            raise InputError(
                f"{name} has {of} rows, another array {len(array)}: they must match."
            )
        finite = _finite(array)
        for row in np.flatnonzero(stay & ~finite).tolist():
            error = RecordError(f"{name}: row {row} is not finite.", "not finite")
            skipped.add(row, f"{name}, row {row}", error, None)
        stay &= finite
    if gone := len(skipped.rows) - known:
        say(f"{name}: {gone:,} of {of:,} rows are left out: not finite")
    if not stay.any():
        raise InputError(f"{name}: no row is finite in all arrays: compute them again.")
    return Kept.where(stay)


def _finite(array: np.ndarray) -> Bool[np.ndarray, " rows"]:
    if array.ndim != 2:
        return np.isfinite(array)
    return np.concatenate([np.isfinite(part).all(1) for part in chunks(array)])
