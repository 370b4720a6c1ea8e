"""Files of a coreset for trainers that do not read JSONL: Parquet and ArrayRecord."""

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from goracs_jax.data.tf_examples import write_array_record
from goracs_jax.errors import InputError, one_line

Records = Sequence[Mapping[str, Any]]


class CoresetFormat(NamedTuple):
    """A format, the name of its file, and what it needs."""

    file: str
    write: Callable[[Path, Records], None]
    check: Callable[[Records], None]  # raises an InputError


def check_formats(names: Sequence[str], records: Records) -> None:
    """Check before any work that records can be written in some formats.

    Args:
        names: The formats, each a key of `FORMATS`.
        records: All records from which a coreset is chosen.

    Raises:
        InputError: There is no such format, a package is missing, or the records do not
            fit into it.

    >>> check_formats(["xml"], [])
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: --coreset-formats must be of parquet and ...
    """
    for name in names:
        if name not in FORMATS:
            raise InputError(
                f"--coreset-formats must be of {' and '.join(FORMATS)}, got {name!r}."
            )
        FORMATS[name].check(records)


def _write_parquet(path: Path, records: Records) -> None:
    _table(records).write_parquet(os.fspath(path))


def _check_parquet(records: Records) -> None:
    try:
        table = _table(records)
        table.clear().write_parquet(BytesIO())
        # polars writes numbers as text where a key has both.
        rows = zip(table.iter_rows(named=True), records, strict=True)
        bad = next((i for i, pair in enumerate(rows, 1) if not _same(*pair)), None)
        problem = bad and f"record {bad} would be changed"
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        problem = one_line(error)
    if problem:
        raise InputError(
            "--coreset-formats parquet: the records cannot be a table, in which a key "
            f"has values of one type ({problem}): leave it out."
        )


def _same(stored: Any, given: Any) -> bool:
    """Tell whether a table has a value as it is; it has null for keys that are not."""
    if isinstance(stored, dict):
        given = {} if given is None else given
        return isinstance(given, Mapping) and all(
            _same(value, given.get(key)) for key, value in stored.items()
        )
    if isinstance(stored, list) and isinstance(given, list):
        return len(stored) == len(given) and all(map(_same, stored, given))
    return stored == given


def _table(records: Records) -> pl.DataFrame:
    return pl.DataFrame(records, infer_schema_length=None)


def _check_array_record(records: Records) -> None:
    if importlib.util.find_spec("array_record") is None:
        raise InputError(
            "--coreset-formats array-record needs an extra package: pip install "
            "'goracs_jax[array-record]', or leave it out."
        )


FORMATS = {
    "parquet": CoresetFormat("coreset.parquet", _write_parquet, _check_parquet),
    "array-record": CoresetFormat(
        "coreset.array_record", write_array_record, _check_array_record
    ),
}
