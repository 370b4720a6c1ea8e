"""Read GGUF files (the format of llama.cpp) into plain arrays."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from goracs_jax.errors import InputError, one_line

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
    """The metadata of an open file, and its tensors, still quantised and on disk."""

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
    """Open a GGUF file; tensors are memory-mapped, not read.

    Args:
        path: The file.

    Returns:
        The file's metadata and tensors.

    Raises:
        InputError: The file does not exist, is not GGUF, is incomplete or one part of
            several, or two of its tensors share bytes.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file: give the path of a .gguf file.")
    state = path.stat()
    return _open(path, state.st_size, state.st_mtime_ns)


# The tokenizer and the weights come from the same file, so its metadata is cached. Size
# and time are part of the cache's key, so that a changed file is read again.
@functools.lru_cache(maxsize=1)
def _open(path: Path, size: int, time: int) -> GGUFFile:
    del size, time
    try:
        with np.errstate(over="ignore"):
            reader = _Reader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # noqa: BLE001 (whatever the bytes lead to)
        raise InputError(
            f"{path}: not a complete GGUF file of a known kind ({one_line(error)}): "
            "fetch it again, or use the model's Hugging Face folder."
        ) from None
    parts = metadata.get("split.count", 1)
    if parts not in (0, 1):
        raise InputError(
            f"{path}: one of {parts} parts of a model: join them with llama.cpp's "
            "llama-gguf-split --merge and give the whole file."
        )
    end = reader.data_offset
    for tensor in sorted(reader.tensors, key=lambda t: t.data_offset):
        if tensor.data_offset < end:
            raise InputError(
                f"{path}: tensor {tensor.name} lies upon the one before it: fetch the "
                "file again."
            )
        end = tensor.data_offset + tensor.n_bytes
    return GGUFFile(path, metadata, {t.name: t for t in reader.tensors})


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
