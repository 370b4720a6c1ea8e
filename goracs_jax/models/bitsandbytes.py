"""Read weights that bitsandbytes quantised, as transformers saves them in safetensors.

Four bits (Dettmers et al., QLoRA, NeurIPS 2023): the numbers of a matrix, row by row,
are cut into blocks of 64. A number is stored as the place q of its quotient by the
largest of its block in a table of 16, two of them in a byte, the first one high:

    w = table[q] * absmax[block]

With double quantisation absmax is stored likewise, less its mean, in bytes and in
blocks of 256. Eight bits (Dettmers et al., LLM.int8(), NeurIPS 2022): every row of a
matrix has a scale, SCB, and w = q * SCB / 127.

Weights are multiplied out as they are read and then lie in the type of the model, as
those of GGUF files do. Adapters see the same base weights that they see in PEFT.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.models.fields import Fields
from goracs_jax.models.folder import parse_json
from goracs_jax.models.tensors import Slices, Tensors

Bits = Literal[4, 8]

#: Fields of quantization_config that change no stored weight: how products are taken,
#: and what the tensors say themselves.
HARMLESS = (
    "_load_in_4bit",
    "_load_in_8bit",
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_storage",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "llm_int8_enable_fp32_cpu_offload",
    "llm_int8_skip_modules",
    "llm_int8_threshold",
)
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
MARKS = tuple(f".quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4"))


def stored_bits(field: Fields) -> Bits:
    """Read how many bits the linear layers of a model are stored in.

    Args:
        field: The fields of quantization_config.

    Raises:
        InputError: It says both or none, or has a field that is not known.

    >>> stored_bits(Fields({"load_in_4bit": True}, "config.json"))
    4
    """
    four, eight = (
        field(name, bool, default=False) for name in ("load_in_4bit", "load_in_8bit")
    )
    if four == eight:
        raise InputError(
            f"{field.where} must have one of load_in_4bit and load_in_8bit: take the "
            "config.json that was saved with the weights."
        )
    field.ignore("quant_method")
    field.only("llm_int8_has_fp16_weight", {False}, default=False)
    field.nothing_else(HARMLESS)
    return 4 if four else 8


def dequantised(tensors: Tensors, bits: Bits | None) -> Tensors:
    """Return the same tensors, of which those of bitsandbytes are floats.

    Args:
        tensors: The tensors of a checkpoint.
        bits: What `stored_bits` says of it.

    Raises:
        InputError: The tensors are stored in another way than config.json says, or a
            part of one is missing or does not fit.
    """
    names = tensors.shapes
    four = {n.removesuffix(m): n for n in names for m in MARKS if n.endswith(m)}
    eight = [name for name in names if name.endswith(".SCB")]
    scales = {name.removesuffix(".SCB") + ".weight": name for name in eight}
    found = 4 if four else 8 if scales else None
    if found != bits:
        said = f"says {bits} bits" if bits else "has no quantization_config"
        raise InputError(
            f"{tensors.where}: config.json {said}, and the weights "
            f"{f'have {found} bits' if found else 'are not quantised'}: take the "
            "config.json that was saved with them."
        )
    stored = {w: _FourBits.open(tensors, w, mark) for w, mark in four.items()}
    rows = {w: _Rows.open(tensors, w, scale) for w, scale in scales.items()}
    parts = {part for one in (*stored.values(), *rows.values()) for part in one.parts}
    shapes = {name: shape for name, shape in names.items() if name not in parts}
    shapes |= {name: one.shape for name, one in stored.items()}

    def read(name: str, part: Slices = ()) -> np.ndarray:
        for kind in (stored, rows):
            if name in kind:
                return kind[name].read(tensors, name)[part]
        return tensors.read(name, part)

    return Tensors(tensors.where, shapes, read)


class _FourBits(NamedTuple):
    """A matrix in four bits: the state that is stored beside it."""

    parts: tuple[str, ...]  # names of what is stored beside it
    shape: tuple[int, ...]
    dtype: Any  # in which bitsandbytes gives the numbers
    block: int
    nested: tuple[int, float] | None  # numbers of a block of absmax, and its mean

    @classmethod
    def open(cls, tensors: Tensors, weight: str, mark: str) -> "_FourBits":
        where = f"{tensors.where}: tensor {mark}"
        try:
            raw = parse_json(tensors.read(mark).tobytes().decode())
            field = Fields(raw, where)
        except ValueError as error:
            raise InputError(f"{where}: not JSON ({error}): fetch it again.") from None
        if not isinstance(raw, Mapping):
            raise InputError(f"{where}: must be a JSON object: fetch it again.")
        shape = field("shape", list)
        if len(shape) != 2 or not all(type(n) is int and 0 < n < 2**31 for n in shape):
            raise InputError(f"{where}: shape {shape!r:.40} is none: fetch it again.")
        nested = None
        if field.get("nested_blocksize") is not None:
            mean = field("nested_offset", float, positive=False)
            nested = (field("nested_blocksize", int), mean)
            field.only("nested_dtype", {"float32"})
        kind = mark.rsplit("__", 1)[-1]
        field.only("quant_type", {kind})
        dtype = DTYPES[field.only("dtype", DTYPES)]
        block = field("blocksize", int)
        field.nothing_else()
        names = ["absmax", "quant_map"]
        names += ["nested_absmax", "nested_quant_map"] if nested else []
        parts = tuple(f"{weight}.{name}" for name in names)
        for name in (weight, *parts):
            if name not in tensors.shapes:
                raise InputError(f"{where}: {name} is missing: fetch all files again.")
        return cls((*parts, mark), tuple(shape), dtype, block, nested)

    def read(self, tensors: Tensors, weight: str) -> np.ndarray:
        count = math.prod(self.shape)
        blocks = -(-count // self.block)
        part = lambda name, *what: _flat(tensors, f"{weight}.{name}", *what)
        table = part("quant_map", 16)
        absmax = part("absmax", blocks, np.uint8 if self.nested else np.float32)
        if self.nested:
            size, mean = self.nested
            outer = part("nested_absmax", -(-blocks // size))
            inner = part("nested_quant_map", 256)[absmax]
            absmax = inner * np.repeat(outer, size)[:blocks] + np.float32(mean)
        # Bytes, whatever type they were stored as (bnb_4bit_quant_storage).
        packed = np.ascontiguousarray(tensors.read(weight)).view(np.uint8).ravel()
        if len(packed) * 2 - count not in (0, 1):
            raise _misfit(tensors, weight)
        places = np.stack([packed >> 4, packed & 15], axis=1).ravel()[:count]
        numbers = table[places] * np.repeat(absmax, self.block)[:count]
        # A number that is none is found by who fills the model, with its place.
        with np.errstate(over="ignore"):
            return numbers.astype(self.dtype).reshape(self.shape)


class _Rows(NamedTuple):
    """A matrix in eight bits, with one scale for each row."""

    parts: tuple[str, ...]

    @classmethod
    def open(cls, tensors: Tensors, weight: str, scale: str) -> "_Rows":
        shape = tensors.shapes.get(weight, ())
        if len(shape) != 2 or tensors.shapes[scale] != shape[:1]:
            raise _misfit(tensors, scale)
        layout = f"{weight}_format"
        if layout in tensors.shapes and np.any(tensors.read(layout)):
            raise InputError(
                f"{tensors.where}: {layout} is not 0: rows in another order are not "
                "read: save the model anew with a bitsandbytes of 2024 or later."
            )
        return cls((scale, layout))

    def read(self, tensors: Tensors, weight: str) -> np.ndarray:
        numbers = tensors.read(weight)
        if numbers.dtype != np.int8:
            raise _misfit(tensors, weight)
        scales = _flat(tensors, self.parts[0], len(numbers))
        return numbers * (scales / np.float32(127))[:, None]


def _flat(tensors: Tensors, name: str, size: int, dtype: Any = np.float32) -> Any:
    found = tensors.read(name).ravel()
    finite = dtype != np.float32 or np.isfinite(found).all()
    if found.size != size or found.dtype != dtype or not finite:
        raise _misfit(tensors, name)
    return found


def _misfit(tensors: Tensors, name: str) -> InputError:
    return InputError(
        f"{tensors.where}: tensor {name} does not fit the quantised weights beside it: "
        "fetch all files again."
    )
