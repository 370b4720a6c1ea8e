"""Read weights that are floats of 8 bits with scales beside them.

A matrix W [out, in] is stored as numbers q of 8 bits and scales s, each of which
belongs to a block of the matrix:

    W[i, j] = q[i, j] s[i // rows, j // columns]

The scales are one number for the matrix, one for each row [out, 1], or a grid of
blocks, mostly 128 x 128, of which the last ones may be cut off (DeepSeek-V3 Technical
Report, section 3.3). Tensors are called NAME.weight and NAME.weight_scale_inv, which
despite its name is a factor, or NAME.weight_scale. Scales of inputs, and of the cache
of keys and values, by which some methods round activations too, are left out: only the
weights are stored, and activations stay floats.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.models.fields import Fields
from goracs_jax.models.tensors import Slices, Tensors

#: Methods of quantization_config that store weights so.
METHODS = ("fp8", "fbgemm_fp8", "compressed-tensors")
ENDS = ("_scale_inv", "_scale")
#: Names of scales in files of image models and their tools, whose conventions differ.
OTHERS = ("scaled_fp8", ".scale_weight", ".scale_input", ".scale")
#: Ends of the names of scales of activations, which change no weight: of inputs, and
#: of queries, keys and values in the cache of generation.
ACTIVATIONS = (
    *(".input_scale", ".activation_scale", ".input_scale_ub", ".output_scale"),
    *(".q_scale", ".k_scale", ".v_scale", ".kv_scale"),
)
#: Fields of quantization_config that change no stored weight: how products are taken,
#: and which layers are stored otherwise, as the tensors say.
HARMLESS = {
    "fp8": ("activation_scheme", "modules_to_not_convert", "ignored_layers"),
    "fbgemm_fp8": ("activation_scale_ub", "modules_to_not_convert"),
    "compressed-tensors": (
        "global_compression_ratio",
        "ignore",
        "kv_cache_scheme",
        "quantization_status",
        "version",
    ),
}


class Scales(NamedTuple):
    """How the scales of a checkpoint lie.

    Args:
        block: Rows and columns of a block, where scales are a grid; None means what
            divides the matrix evenly.
        stated: Whether config.json says that there are scales.
    """

    block: tuple[int, int] | None = None
    stated: bool = False


def stored_scales(field: Fields, method: str) -> Scales:
    """Read how scales lie from quantization_config.

    Args:
        field: Its fields.
        method: Its quant_method.

    Raises:
        InputError: It is a way that is not read, or has a field that is not known.

    >>> raw = {"fmt": "e4m3", "weight_block_size": [128, 128]}
    >>> stored_scales(Fields(raw, "config.json"), "fp8").block
    (128, 128)
    """
    field.ignore("quant_method")
    block = None
    if method == "fp8":
        field.only("fmt", {"e4m3", "float8_e4m3fn"}, default="e4m3")
        field.only("scale_fmt", {"ue8m0", "float"}, default="float")
        field.only("dequantize", {False, True}, default=False)
        block = _block(field.get("weight_block_size"), field.where)
    if method == "compressed-tensors":
        field.only("format", {"float-quantized", "naive-quantized"})
        for name in ("sparsity_config", "transform_config"):
            if field.get(name) not in (None, {}):
                field.only(name, {None})
        block = _of_groups(field)
    field.nothing_else(HARMLESS[method])
    return Scales(block, stated=True)


def _of_groups(field: Fields) -> tuple[int, int] | None:
    """Read the block of compressed-tensors, which names it for groups of layers."""
    groups, blocks = field.get("config_groups"), set()
    if not isinstance(groups, Mapping) or not groups:
        raise InputError(f"{field.where}: config_groups must name a group of layers.")
    for name, group in groups.items():
        where = f"{field.where}: config_groups.{name}.weights"
        weights = group.get("weights") if isinstance(group, Mapping) else None
        inner = Fields(weights if isinstance(weights, Mapping) else {}, where)
        inner.only("type", {"float"})
        inner.only("num_bits", {8})
        inner.only("symmetric", {True}, default=True)
        inner.only("strategy", {"tensor", "channel", "block"})
        blocks.add(_block(inner.get("block_structure"), where))
    if len(blocks) > 1:
        raise InputError(f"{field.where}: groups with different blocks are not read.")
    return blocks.pop()


def _block(value: Any, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    right = isinstance(value, list) and len(value) == 2
    if not right or not all(type(n) is int and 0 < n < 2**31 for n in value):
        raise InputError(
            f"{where}: a block must have two numbers, rows and columns, got "
            f"{value!r:.40}: take the file that was published with the weights."
        )
    return value[0], value[1]


def has_scales(tensors: Tensors) -> bool:
    """Tell whether tensors have the names of scales of floats of 8 bits."""
    ends = (*(f".weight{end}" for end in ENDS), *ACTIVATIONS)
    return any(name.endswith(ends) for name in tensors.shapes)


def dequantised(tensors: Tensors, scales: Scales) -> Tensors:
    """Return the same tensors, of which those of 8 bits are float32.

    Weights of 8 bits without any scale are taken as they are, if nothing says that they
    have some: someone has rounded them.

    Args:
        tensors: The tensors of a checkpoint.
        scales: What is known of their scales.

    Raises:
        InputError: A weight has no scale although others have, a scale has no weight,
            or one does not fit the other.
    """
    names, of = tensors.shapes, _scales_of(tensors)
    parts = {*of.values(), *(name for name in names if name.endswith(ACTIVATIONS))}
    matrices = tensors.float8 - parts
    other = next((n for n in names if n.endswith(OTHERS)), None)
    if tensors.float8 and other and not of:
        raise InputError(
            f"{tensors.where}: tensor {other} scales floats of 8 bits under another "
            "name than NAME.weight_scale, and is not read: save the model in bfloat16."
        )
    if scales.stated and not of:
        raise InputError(
            f"{tensors.where}: config.json says that weights are floats of 8 bits with "
            "scales, and they are not: take the config.json that was saved with them."
        )
    if of and (bare := sorted(matrices - of.keys())):
        raise _misfit(tensors, bare[0], "its scale, NAME.weight_scale, is missing")
    grids = {weight: _grid(tensors, weight, of[weight], scales) for weight in of}

    def read(name: str, part: Slices = ()) -> np.ndarray:
        numbers = tensors.read(name, part)
        if name not in matrices:
            return numbers
        numbers = numbers.astype(np.float32)
        if name not in of:
            return numbers
        factor = _factors(tensors, of[name])
        if factor.size > 1:
            places = [
                np.arange(size)[cut] // step
                for size, cut, step in zip(
                    names[name], part or (slice(None),) * 2, grids[name], strict=True
                )
            ]
            factor = factor[np.ix_(*places)]
        # A number that is none is found by who fills the model, with its place.
        with np.errstate(over="ignore", invalid="ignore"):
            return numbers * factor

    shapes = {name: shape for name, shape in names.items() if name not in parts}
    return Tensors(tensors.where, shapes, read)


def _scales_of(tensors: Tensors) -> dict[str, str]:
    """Map the names of weights to those of their scales.

    Raises:
        InputError: A scale has no weight of 8 bits, or a weight has two scales.
    """
    of: dict[str, str] = {}
    for name in tensors.shapes:
        for end in ENDS:
            if not name.endswith(f".weight{end}"):
                continue
            weight = name.removesuffix(end)
            if weight not in tensors.float8:
                problem = f"{weight} has a scale and no floats of 8 bits"
                raise _misfit(tensors, name, problem)
            if weight in of:
                raise _misfit(tensors, name, f"{weight} has two scales")
            of[weight] = name
    return of


def _grid(tensors: Tensors, weight: str, scale: str, scales: Scales) -> tuple[int, int]:
    """Return the rows and columns of a block of a weight.

    Raises:
        InputError: There are too many or too few scales.
    """
    shape, grid = tensors.shapes[weight], tensors.shapes[scale]
    if len(shape) != 2:
        raise _misfit(tensors, weight, f"it has the shape {shape} and no rows")
    if int(np.prod(grid)) == 1:
        return shape[0], shape[1]
    if len(grid) == 1 and grid[0] == shape[0]:
        grid = (*grid, 1)
    if grid == (shape[0], 1):
        return 1, shape[1]
    if scales.block is not None:
        block = scales.block
        fits = grid == tuple(-(-n // b) for n, b in zip(shape, block, strict=True))
    else:
        fits = len(grid) == 2 and all(
            count and not n % count for n, count in zip(shape, grid, strict=True)
        )
        block = (shape[0] // grid[0], shape[1] // grid[-1]) if fits else (1, 1)
    if not fits:
        raise _misfit(tensors, scale, f"{weight} has the shape {shape}, it {grid}")
    return block


def _factors(tensors: Tensors, name: str) -> np.ndarray:
    """Read scales as float32: a matrix, or one number."""
    found = np.asarray(tensors.read(name))
    if found.dtype == np.uint8:  # exponents of 2, as E8M0 has them
        found = found.view(ml_dtypes.float8_e8m0fnu)
    found = found.astype(np.float32)
    return found[:, None] if found.ndim == 1 and found.size > 1 else found


def _misfit(tensors: Tensors, name: str, problem: str) -> InputError:
    return InputError(
        f"{tensors.where}: tensor {name} does not fit the floats of 8 bits beside it "
        f"({problem}): fetch all files again."
    )
