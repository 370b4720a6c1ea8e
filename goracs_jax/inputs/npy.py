"""The header of a .npy file, checked before anything is allocated or mapped."""

import math
from typing import Any, NamedTuple

import numpy as np

READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
    """The shape of an array, whether its columns follow each other, and its type."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def check_header(file: Any, size: int) -> Header:
    """Check that the header of an array describes exactly the bytes that follow it.

    NumPy multiplies the lengths of the axes without a look at overflow, allocates what
    they say, and leaves bytes unread that come behind.

    Args:
        file: An open .npy file, or one inside an .npz file, at its start.
        size: Its bytes.

    Returns:
        What the header says.

    Raises:
        ValueError: It is no such file, or has fewer or more bytes.

    >>> import io
    >>> np.save(file := io.BytesIO(), np.ones((2, 3), np.float32))
    >>> check_header(io.BytesIO(file.getvalue()), 152)
    Header(shape=(2, 3), fortran=False, dtype=dtype('float32'))
    >>> check_header(io.BytesIO(file.getvalue()), 151)
    Traceback (most recent call last):
    ...
    ValueError: its header says shape [2, 3] of float32, 24 bytes, and 23 bytes follow
    """
    version = np.lib.format.read_magic(file)
    if version not in READERS:
        raise ValueError(f"its format has version {version}")
    header = Header(*READERS[version](file))
    shape, _, dtype = header
    if dtype.kind == "V" and not dtype.names:
        raise ValueError(f"its values have the type {dtype}, as which bfloat16 is kept")
    if dtype.hasobject:
        return header  # a pickle, of another length, which no reader here opens
    said, found = math.prod(shape) * dtype.itemsize, size - file.tell()
    if said != found or min(shape, default=0) < 0:
        raise ValueError(
            f"its header says shape {[*map(int, shape)]} of {dtype}, {said} bytes, and "
            f"{found} bytes follow"
        )
    return header
