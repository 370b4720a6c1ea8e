"""Arrays from files: .npy, .npz, safetensors, Parquet or Arrow, whole or in shards.

Nothing is unpickled. A .npy file is used where it lies, and so is a tensor that starts
at a multiple of 64 bytes; all else but .npz is copied, piece by piece, into a file
without a name, which is used so.
"""

import contextlib
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import safe_open

from goracs_jax.buckets import Remote, as_path
from goracs_jax.errors import InputError, one_line
from goracs_jax.files import digest, unnamed
from goracs_jax.inputs.arrays import array_of_frame
from goracs_jax.inputs.npy import check_header
from goracs_jax.inputs.parts import files_of, hash_input
from goracs_jax.inputs.streams import head_of, is_packed
from goracs_jax.inputs.tables import batches, is_table

NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"
#: Parts of a .npz file by which SciPy keeps a sparse matrix.
SPARSE = {"format", "shape", "data"}
#: Types of safetensors whose names are not NumPy's.
TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
#: The bytes that a CPU's arrays in place start at a multiple of.
ALIGNED = 64
#: Bytes that are copied at a time.
PIECE = 1 << 26
READ = ".npy, .npz, .safetensors, Parquet or Arrow"
#: What reading a lost or damaged file raises.
BROKEN = (
    *(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
    *(RecursionError, OverflowError),
)


class Named(NamedTuple):
    """The files of an array, and its name in them; empty where there is one alone."""

    path: Path
    name: str

    @classmethod
    def of(cls, path: Path) -> "Named":
        """Split FILE:NAME, unless there is a file of that name.

        >>> Named.of(Path("x.npz:train"))
        Named(path=PosixPath('x.npz'), name='train')
        """
        file, colon, name = str(path).rpartition(":")
        if name.startswith("//") or not (colon and file):  # of a URL, or none
            return cls(path, "")
        with contextlib.suppress(OSError):  # a name may be too long for a file
            if path.exists():
                return cls(path, "")
            while not as_path(file).exists():  # the name may have colons, too
                shorter, _, more = file.rpartition(":")
                if not shorter or more.startswith("//"):
                    break
                file, name = shorter, f"{more}:{name}"
        return cls(as_path(file), name)


def read_array(path: Path, what: str, kind: str) -> np.ndarray:
    """Read one array of numbers or strings.

    Args:
        path: A file, a folder or a pattern of shards (see
            `goracs_jax.inputs.parts.files_of`); or FILE:NAME, where a file has several
            arrays or columns.
        what: What the array is called in messages.
        kind: Which values it should have, for the same messages.

    Raises:
        InputError: There is no such file or array, a file is damaged or of another
            kind, or shards do not fit together.
    """
    given = Named.of(path)
    files = files_of(given.path)
    try:
        if len(files) == 1 and not is_table(head_of(files[0])):
            found = _of_file(files[0], given.name)
            if not found.ndim:
                raise InputError(f"{path} has one number: give one for each row.")
            aligned = found.ctypes.data % ALIGNED == 0 or not isinstance(
                found, np.memmap
            )
            if aligned and found.dtype.isnative:
                return found
            return _joined(_cut(found), path)
        return _joined(
            (piece for file in files for piece in _pieces(file, given.name)), path
        )
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever the bytes lead to)
        raise InputError(
            f"{path} is not a file of numbers or strings that can be read "
            f"({one_line(error)}): write the {what} as {READ}, as an array of {kind}."
        ) from None


def hash_array(path: Path) -> str:
    """Return the SHA-256 of the files of an array, with its name if it has one."""
    given = Named.of(path)
    found = hash_input(given.path)
    return digest({"files": found, "name": given.name}) if given.name else found


def _of_file(file: Path, name: str) -> np.ndarray:
    head = head_of(file)
    if is_packed(file):
        raise InputError(f"{file} is packed: unpack it, as arrays are used in place.")
    if head.startswith(NPY):
        return _of_npy(file, name)
    if head[8:9] == b"{":
        return _of_safetensors(file, name)
    with file.open("rb") as stream:  # NumPy leaves a damaged file open
        if not stream.read(4).startswith(ZIP):
            raise ValueError("its first bytes are of another kind")
        with zipfile.ZipFile(stream) as parts:
            for info in parts.infolist():
                if info.filename.endswith(".npy"):
                    with parts.open(info) as part:
                        check_header(part, info.file_size)
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as arrays:
            if any(each.endswith("data.pkl") for each in arrays.files):
                raise InputError(
                    f"{file} is a file of PyTorch, a pickle, which stays unread: write "
                    "it with safetensors or numpy.save."
                )
            if {*arrays.files} >= SPARSE:
                raise InputError(
                    f"{file} is a sparse matrix of SciPy: write its rows as they are "
                    "(numpy.save, matrix.toarray())."
                )
            found = arrays[_chosen(file, name, arrays.files)]
            if not isinstance(found, np.ndarray):
                raise ValueError("its part is no array")
            return found


def _of_npy(file: Path, name: str) -> np.ndarray:
    with file.open("rb") as stream:
        shape, fortran, dtype = check_header(stream, file.stat().st_size)
        start = stream.tell()
    if name:
        raise InputError(f"{file} has one array without a name: leave out :{name}.")
    if not isinstance(file, Remote) or dtype.hasobject:
        return np.lib.format.open_memmap(file, mode="r")
    if fortran:
        return _mapped(file, dtype, start, shape[::-1]).T
    return _mapped(file, dtype, start, shape)


def _of_safetensors(file: Path, name: str) -> np.ndarray:
    with (
        _as_long(file) as alike,
        safe_open(alike, framework="numpy") as tensors,  # checks the header
    ):
        name = _chosen(file, name, [*tensors.keys()])
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        entry = json.loads(stream.read(size))[name]
    if entry["dtype"] not in TYPES:
        raise InputError(f"{file}: {name} has the type {entry['dtype']}: write floats.")
    start, _ = entry["data_offsets"]
    shape = tuple(entry["shape"])
    return _mapped(file, np.dtype(TYPES[entry["dtype"]]), 8 + size + start, shape)


@contextlib.contextmanager
def _as_long(file: Path) -> Iterator[str]:
    """Name a file; in place of one in a bucket, its header and as many zeros."""
    if not isinstance(file, Remote):
        yield os.fspath(file)
        return
    size = file.stat().st_size
    with file.open("rb") as stream, tempfile.NamedTemporaryFile() as own:
        start = stream.read(8)
        own.write(start + stream.read(min(int.from_bytes(start, "little"), size)))
        own.truncate(size)
        yield own.name


def _mapped(
    file: Path, dtype: np.dtype, offset: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Map the bytes of one array; of an object in a bucket these alone are fetched."""
    if not isinstance(file, Remote):
        return np.memmap(file, dtype, "r", offset, shape)
    left = math.prod(shape) * dtype.itemsize
    with file.open("rb") as stream, unnamed() as own:
        stream.seek(offset)
        while left and (piece := stream.read(min(PIECE, left))):
            own.write(piece)
            left -= len(piece)
        own.flush()
        return np.memmap(own, dtype, "r", 0, shape)


def _cut(array: np.ndarray) -> Iterator[np.ndarray]:
    # Of rows without numbers a header may tell of any number.
    step = max(1, PIECE // array[:1].nbytes if array.nbytes else len(array))
    return (array[i : i + step] for i in range(0, len(array), step))


def _pieces(file: Path, name: str) -> Iterator[np.ndarray]:
    if not is_table(head_of(file)):
        yield from _cut(_of_file(file, name))
        return
    first = 0
    for frame in batches(file, [name] if name else None):
        if name and name not in frame.columns:
            raise InputError(f"{file} has no column {name!r}: check the name.")
        yield array_of_frame(frame, str(file), first)
        first += len(frame)


def _chosen(file: Path, name: str, present: list[str]) -> str:
    if name and name in present:
        return name
    if not name and len(present) == 1:
        return present[0]
    raise InputError(
        f"{file} has the arrays {', '.join(present) or '(none)'}: name one, as in "
        f"{file}:{present[0] if present else 'NAME'}."
    )


def _joined(pieces: Iterable[np.ndarray], path: Path) -> np.ndarray:
    """Write arrays below each other into a file without a name, and map it."""
    form, rows, texts = None, 0, []
    with unnamed() as file:
        for piece in pieces:
            if piece.dtype.hasobject:
                raise ValueError("it has gaps, or values of another kind")
            piece = piece.astype(piece.dtype.newbyteorder("="), copy=False)
            own = ("text" if piece.dtype.kind == "U" else piece.dtype, piece.shape[1:])
            if own != (form := form or own):
                shown = (f"{kind} {list(shape)}" for kind, shape in (form, own))
                raise InputError(
                    f"{path}: the rows of its shards are {' and '.join(shown)}: write "
                    "them alike."
                )
            if piece.dtype.kind == "U":
                texts.append(piece)
            else:
                file.write(np.ascontiguousarray(piece).view(np.uint8).data)
            rows += len(piece)
        if form is None or not rows:
            raise InputError(f"{path} has no rows: give at least one.")
        if texts:
            return np.concatenate(texts)
        file.flush()
        return np.memmap(file, form[0], "r", 0, (rows, *form[1]))
