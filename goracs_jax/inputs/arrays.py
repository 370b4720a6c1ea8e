"""Arrays from what users have in Python: tensors, frames, datasets and lists."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import polars as pl
import polars.selectors as cs

from goracs_jax.errors import InputError, one_line
from goracs_jax.inputs.tables import as_frame, is_frame


def as_array(value: Any, name: str = "the rows") -> np.ndarray:
    """Make an array of NumPy, without a copy where the memory allows that.

    Args:
        value: An array of NumPy or JAX; a tensor of PyTorch, or of any library that has
            DLPack; a frame or series of polars or pandas, a table of PyArrow or a
            dataset of `datasets`, with one column of vectors or columns of numbers; or
            lists. Numbers in lists of lists become float32.
        name: What it is, for messages.

    Raises:
        InputError: It cannot be read so; or vectors differ in length or are missing.

    >>> as_array([[1, 2], [3, 4]]).dtype, as_array([1, 2]).dtype
    (dtype('float32'), dtype('int64'))
    >>> as_array(pl.DataFrame({"text": ["a"], "vector": [[1.0, 2.0]]})).tolist()
    [[1.0, 2.0]]
    """
    if np.ma.is_masked(value):
        raise InputError(f"{name} have masked values: give rows without gaps.")
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.tolist()  # a column of pandas: an array of arrays, or of texts
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if is_frame(value):
        return array_of_frame(as_frame(value), name)
    try:
        if hasattr(value, "__dlpack__"):
            return _of_tensor(value)
        array = np.asarray(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        cure = "give one list of numbers for each row, all of one length"
        if hasattr(value, "__dlpack__"):
            cure = "give tensor.detach().cpu()"
        raise InputError(
            f"{name} cannot be read as an array ({one_line(error)}): {cure}."
        ) from None
    if array.ndim == 2 and isinstance(value, Sequence) and array.dtype.kind in "if":
        array = array.astype(np.float32)
    return array


def as_arrays(**given: Any) -> list[np.ndarray | None]:
    """Make an array of each value that is given, and leave None.

    >>> as_arrays(rewards=[1.0], grad_norms=None)
    [array([1.]), None]
    """
    return [
        None if value is None else as_array(value, name.replace("_", " "))
        for name, value in given.items()
    ]


def array_of_frame(frame: pl.DataFrame, name: str, first: int = 0) -> np.ndarray:
    """Make a matrix of the one column of vectors, or of all columns of numbers.

    A frame with one column, of numbers or text, gives a vector.

    Args:
        frame: The rows.
        name: What they are, for messages.
        first: The number of the first row, for the same.

    Raises:
        InputError: There are several columns of vectors, or none and no numbers; whole
            numbers stand beside floats, as ids do; or vectors differ in length or are
            missing.
    """
    frame = frame.with_columns(
        cs.decimal().cast(pl.Float64), (cs.categorical() | cs.enum()).cast(pl.String)
    )
    kinds = dict(frame.schema)
    vectors = [
        column
        for column, dtype in kinds.items()
        if isinstance(dtype, pl.List | pl.Array) and dtype.inner.is_numeric()
    ]
    if len(vectors) == 1:
        return _stacked(frame[vectors[0]], name, first)
    if len(kinds) == 1 and not vectors:
        column = frame.to_series()
        return column.to_numpy() if column.dtype != pl.String else np.array([*column])
    if vectors or not all(dtype.is_numeric() for dtype in kinds.values()):
        raise InputError(
            f"{name} have the columns {', '.join(kinds)}: give one column of vectors, "
            "or numbers alone."
        )
    whole = [column for column, dtype in kinds.items() if dtype.is_integer()]
    if 0 < len(whole) < len(kinds):
        raise InputError(
            f"{name} have whole numbers ({', '.join(whole[:5])}) beside others: leave "
            "out what is no number of the rows, such as ids, or write all as floats."
        )
    return frame.to_numpy()


def _stacked(column: pl.Series, name: str, first: int) -> np.ndarray:
    if isinstance(column.dtype, pl.Array) and not column.null_count():
        return column.to_numpy()
    lengths = column.cast(pl.List(column.dtype.inner)).list.len().fill_null(0)  # type: ignore
    usual = int(lengths.mode().max() or 0)  # type: ignore
    if (wrong := (lengths != usual) | (lengths == 0)).any():
        row = int(wrong.arg_true()[0])
        others = f", others have {usual}" if usual else ""
        raise InputError(
            f"{name}: row {first + row} (from 0) has {lengths[row] or 'no'} numbers"
            f"{others}: give each row one vector."
        )
    return column.explode().to_numpy().reshape(len(column), -1)


def _of_tensor(value: Any) -> np.ndarray:
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError):
        # NumPy knows no bfloat16 and no memory of a GPU, and JAX does.
        return np.asarray(jax.dlpack.from_dlpack(value))
