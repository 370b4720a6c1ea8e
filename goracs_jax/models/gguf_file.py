"""Read GGUF files (the format of llama.cpp) into plain arrays."""

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from goracs_jax.buckets import as_path
from goracs_jax.errors import InputError, one_line
from goracs_jax.files import fetch_again

#: Parts of a header at most: those of the largest vocabularies are two million.
MOST_PARTS = 2**23


class _Reader(GGUFReader):
    """A reader of files that may claim more than they have, in lists without end."""

    parts = 0

    def _get(self, offset: Any, dtype: Any, count: Any = 1, *more: Any, **named: Any):
        found = super()._get(offset, dtype, count, *more, **named)
        self.parts += 1
        if len(found) < count:
            raise ValueError("it ends before its last number")
        if self.parts > MOST_PARTS:
            raise ValueError(f"its header has more than {MOST_PARTS} parts")
        return found


class GGUFFile(NamedTuple):
    """The metadata of an open model, and its tensors, still quantised and on disk."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Any]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a shape in row-major order; GGUF lists the fastest axis first."""
        return tuple(int(n) for n in reversed(self.tensors[name].shape))

    def read(self, name: str) -> np.ndarray:
        """Read one tensor and dequantise it to float32.

        Raises:
            InputError: The kind of quantisation is not supported.
        """
        tensor = self.tensors[name]
        try:
            return dequantize(tensor.data, tensor.tensor_type).reshape(self.shape(name))
        except NotImplementedError:
            kind = GGMLQuantizationType(tensor.tensor_type).name
            raise InputError(
                f"{self.path}: tensor {name} is stored as {kind}, which cannot be "
                "dequantised: use a Q4_1, Q8_0, F16 or F32 file."
            ) from None


def open_gguf(path: str | Path) -> GGUFFile:
    """Open a GGUF model; tensors are memory-mapped, not read.

    A model may be in several files, NAME-00001-of-00003.gguf and so on. The first has
    the metadata, and all have tensors.

    Args:
        path: The file, or the first of several.

    Returns:
        The model's metadata and tensors.

    Raises:
        InputError: A file does not exist, is not GGUF, is incomplete or is no part of
            this model; it is not the first of its parts; or two tensors share bytes.
    """
    path = as_path(path)
    first = _file(path, "give the path of a .gguf file.")
    count = first.metadata.get("split.count", 1)
    names = part_names(path.name)
    if count in (0, 1):
        if len(names) > 1:
            raise InputError(
                f"{path}: its name is that of one of {len(names)} parts, and it does "
                "not say how many there are: give it another name if it is whole."
            )
        return first
    if len(names) != count:
        raise InputError(
            f"{path}: one of {count!r:.20} parts of a model: give all parts the names "
            "that they were published with, in one folder (NAME-00001-of-00003.gguf "
            "and so on)."
        )
    if path.name != names[0]:
        raise InputError(f"{path}: a later part of a model: give {names[0]}.")
    missing = f"it is one of the {count} parts of this model, put it there."
    files = [_file(path.with_name(name), missing) for name in names]
    tensors: dict[str, Any] = {}
    for i, file in enumerate(files):
        place = tuple(file.metadata.get(f"split.{key}") for key in ("no", "count"))
        if place != (i, count) or not tensors.keys().isdisjoint(file.tensors):
            raise InputError(
                f"{file.path}: no part {i + 1} of {count} of {path.name}: fetch it "
                "again."
            )
        tensors |= file.tensors
    expected = first.metadata.get("split.tensors.count", len(tensors))
    if len(tensors) != expected:
        raise InputError(
            f"{path}: its {count} parts have {len(tensors)} tensors, not {expected}: "
            "fetch them again."
        )
    return first._replace(tensors=tensors)


def part_names(name: str) -> list[str]:
    """Return the names of all parts of a model, as llama.cpp numbers them.

    >>> part_names("m-00001-of-00002.gguf"), part_names("m.gguf")
    (['m-00001-of-00002.gguf', 'm-00002-of-00002.gguf'], ['m.gguf'])
    """
    found = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.gguf", name, re.DOTALL)
    if not found:
        return [name]
    stem, count = found.groups()
    return [f"{stem}-{i + 1:05}-of-{count}.gguf" for i in range(int(count))]


def _file(path: Path, cure: str) -> GGUFFile:
    if not path.is_file():
        raise InputError(f"{path}: no such file: {cure}")
    state = path.stat()
    return _open(path, state.st_size, state.st_mtime_ns)


# The tokenizer and the weights come from the same file, so its metadata is cached. Size
# and time are part of the cache's key, so that a changed file is read again.
@functools.lru_cache(maxsize=64)
def _open(path: Path, size: int, time: int) -> GGUFFile:
    del size, time
    try:
        with np.errstate(over="ignore"):
            reader = _Reader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # noqa: BLE001 (whatever the bytes lead to)
        raise InputError(
            f"{path}: not a complete GGUF file of a known kind ({one_line(error)}): "
            f"{fetch_again(path)}, or use the model's Hugging Face folder."
        ) from None
    end = reader.data_offset
    for tensor in sorted(reader.tensors, key=lambda t: t.data_offset):
        if tensor.data_offset < end:
            raise InputError(
                f"{path}: tensor {tensor.name} lies upon the one before it: fetch the "
                "file again."
            )
        end = tensor.data_offset + tensor.n_bytes
    tensors = {t.name: t for t in reader.tensors}
    return GGUFFile(path, metadata, tensors)


def unpermute(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Undo llama.cpp's reordering of the rows of a query or key matrix.

    llama.cpp rotates neighbouring pairs (x_0, x_1). Hugging Face and our code rotate
    pairs (x_0, x_{h/2}). The converter of llama.cpp therefore interleaves the two
    halves of every head.

    Args:
        rows: Matrix [heads * head_dim, in], or bias, from a GGUF file.
        num_heads: Number of query heads, or of key heads for a key matrix.

    Returns:
        The rows in Hugging Face's order.

    >>> unpermute(np.array([[0], [2], [1], [3]]), num_heads=1).ravel()
    array([0, 1, 2, 3])
    """
    out, *rest = rows.shape
    pairs = rows.reshape(num_heads, out // num_heads // 2, 2, *rest)
    return pairs.swapaxes(1, 2).reshape(rows.shape)
