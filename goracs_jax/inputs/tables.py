"""Tables of columns: Parquet, Arrow (file, stream), and frames of other libraries."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from goracs_jax.buckets import Remote
from goracs_jax.errors import InputError, one_line
from goracs_jax.files import existing_file
from goracs_jax.inputs.streams import is_packed, opened

#: Rows that are Python objects at the same time.
CHUNK = 50_000
#: Types that JSON lacks, and those that become text where they are not nested.
NO_JSON = (pl.Binary, pl.Object, pl.Duration)
AS_TEXT = (pl.Date, pl.Datetime, pl.Time, pl.Decimal)
#: How pandas names the numbers of its rows, which are no data.
INDEX = cs.matches(r"^__index_level_\d+__$")
PARQUET, ARROW, STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"


def is_table(head: bytes) -> bool:
    """Whether a file that starts so is a table of columns."""
    return head.startswith((PARQUET, ARROW, STREAM))


def batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
    """Read a table, some rows at a time; an index of pandas is left out.

    Args:
        path: A Parquet file, or an Arrow file or stream (Feather and IPC are others of
            its names).
        columns: Those to read, where the file has them; all if None.

    Raises:
        InputError: The file cannot be read.
    """
    with opened(path) as file:
        head = file.stream.peek(8)[:8]
        try:
            if columns is not None and head.startswith(PARQUET) and _in_ranges(path):
                frames = _columns_of(path, columns)
            elif head.startswith(STREAM):
                frames = iter([pl.read_ipc_stream(file.stream.read())])
            else:
                scan = pl.scan_parquet if head.startswith(PARQUET) else pl.scan_ipc
                packed = is_packed(path)
                # Unpacked bytes where the file is packed as a whole, which is rare.
                source = file.stream.read() if packed else os.fspath(path)
                # A name may have the characters of a pattern.
                table = scan(source, glob=False)
                if columns is not None and {*columns} & {*table.collect_schema()}:
                    table = table.select(cs.by_name(*columns, require_all=False))
                frames = table.collect_batches(chunk_size=CHUNK, maintain_order=True)
            for frame in frames:
                if columns is not None:
                    frame = frame.select(cs.by_name(*columns, require_all=False))
                yield frame.select(~INDEX)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise _damaged(path, error) from None


def names_in(path: Path) -> list[str]:
    """Return the names of a table's columns; in a bucket they alone are read.

    Raises:
        InputError: The file cannot be read.
    """
    if not (_in_ranges(path) and is_parquet(path)):
        return next((frame.columns for frame in batches(path)), [])
    import pyarrow as pa
    from pyarrow.parquet import read_schema

    try:
        with path.open("rb") as stream:
            return pl.DataFrame(schema=read_schema(stream).names).select(~INDEX).columns
    except pa.ArrowException as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"{path} is damaged, or a table that cannot be read ({one_line(error)}): write "
        "it again."
    )


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, and not packed."""
    with existing_file(path).open("rb") as file:
        return file.read(len(PARQUET)) == PARQUET


def take_rows(files: Sequence[Path], rows: np.ndarray) -> pl.DataFrame | None:
    """Take rows of tables that follow each other, with their columns and types.

    Args:
        files: The tables.
        rows: Which rows, counted from 0 over all files, in the order of the result.

    Returns:
        The rows; None where a column has types in them that do not go together.
    """
    order = np.argsort(rows, kind="stable")
    left, found, start = rows[order], [], 0
    for file in files:
        for frame in batches(file):
            count = np.searchsorted(left, start + len(frame))
            found.append(frame[left[:count] - start])
            left, start = left[count:], start + len(frame)
    try:
        # A column can be missing in one file, or have nothing but gaps there.
        return pl.concat(found, how="diagonal_relaxed")[np.argsort(order)]
    except pl.exceptions.PolarsError:
        return None


def rows_of(frame: pl.DataFrame, where: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table as dictionaries of what JSON can hold.

    NaN becomes None, and dates become text (ISO 8601).

    Raises:
        InputError: A column has bytes, objects, durations, or dates inside lists.

    >>> list(rows_of(pl.DataFrame({"a": [1.5, float("nan")]}), "a.parquet"))
    [{'a': 1.5}, {'a': None}]
    """
    for name, dtype in frame.schema.items():
        nested = dtype.is_nested()
        bad = (*NO_JSON, *AS_TEXT) if nested else NO_JSON
        if any(isinstance(part, bad) for part in _parts(dtype)):
            raise InputError(
                f"{where}: column {name!r} has the type {dtype}, which JSON does not "
                "have: leave it out, or write it as text or numbers."
            )
    plain = frame.with_columns(
        (cs.temporal() | cs.decimal() | cs.categorical() | cs.enum()).cast(pl.String),
        cs.float().fill_nan(None),
    )
    return plain.iter_rows(named=True)


def _parts(dtype: Any) -> Iterator[Any]:
    """Yield a type and all that it is made of."""
    yield dtype
    if isinstance(dtype, pl.List | pl.Array):
        yield from _parts(dtype.inner)
    elif isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            yield from _parts(field.dtype)


def is_frame(value: Any) -> bool:
    """Whether a value is a table of polars, pandas, PyArrow or datasets."""
    names = ("to_polars", "__arrow_c_stream__", "__arrow_c_array__", "iloc")
    return isinstance(value, pl.DataFrame | pl.LazyFrame | pl.Series) or any(
        hasattr(value, name) for name in names
    )


def as_frame(value: Any) -> pl.DataFrame:
    """Make a table of polars from one of pandas, PyArrow or datasets.

    The index of pandas is left out.

    Raises:
        InputError: Its columns cannot be read, or show less than its rows.
    """
    _check_untransformed(value)
    try:
        if isinstance(value, pl.LazyFrame):
            return value.collect()
        if isinstance(value, pl.DataFrame | pl.Series):
            return value.to_frame() if isinstance(value, pl.Series) else value
        if hasattr(value, "to_polars"):  # datasets, with its own choice of rows
            return value.to_polars()
        if hasattr(value, "iloc"):
            frame = value.to_frame() if hasattr(value, "to_frame") else value
            names = [str(name) for name in frame.columns]
            if len(set(names)) < len(names):
                raise ValueError("two columns have the same name")
            columns = (_values(frame[name]) for name in frame.columns)
            return pl.DataFrame(dict(zip(names, columns, strict=True)), strict=False)
        found = pl.from_arrow(value)
        return found.to_frame() if isinstance(found, pl.Series) else found
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise InputError(
            f"a {type(value).__name__} cannot be read as a table ({one_line(error)}): "
            "give columns of text or numbers."
        ) from None


def _check_untransformed(value: Any) -> None:
    """Refuse a dataset of `datasets` that makes its rows when they are asked for."""
    form = getattr(value, "format", None)
    if isinstance(form, dict) and form.get("type") == "custom":
        raise InputError(
            "the dataset has a transform, which its columns do not show: give "
            "dataset.map(...), or dataset.with_format(None)."
        )


def _values(column: Any) -> Any:
    """Return the values of a column of pandas, with None for what is missing."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy()
    pairs = zip(column.tolist(), column.isna().tolist(), strict=True)
    return [None if missing else value for value, missing in pairs]


def _in_ranges(path: Path) -> bool:
    return isinstance(path, Remote) and importlib.util.find_spec("pyarrow") is not None


def _columns_of(path: Path, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Read some columns of a Parquet file in a bucket; the others are not fetched.

    polars reads ranges of files that have names, and fetches all of other streams.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with path.open("rb") as stream:
            file = ParquetFile(stream)
            present = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(CHUNK, columns=present):
                yield pl.DataFrame(pa.table(batch))
    except pa.ArrowException as error:
        raise _damaged(path, error) from None
