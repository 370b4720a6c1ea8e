"""Which method quantised the weights of a checkpoint: it is read, or refused by name.

A config.json says so in its `quantization_config`. Where it is lost, the tensors tell:
next to the numbers of a matrix lie their scales.
"""

import re
from collections.abc import Mapping
from typing import Any

from goracs_jax.errors import InputError
from goracs_jax.models import bitsandbytes, float8
from goracs_jax.models.fields import Fields
from goracs_jax.models.tensors import Tensors

#: Ends of names, and the methods that write them.
METHODS = {
    r"_proj_(blocks|scales)": "MXFP4",
    r"\.weight_scale_2": "NVFP4",
    r"\.(qweight|qzeros)": "GPTQ or AWQ",
    r"\.weight_(packed|shape|zero_point)": "compressed-tensors",
    r"\.W_q": "HQQ",
    r"\.biases": "MLX",
    r"weight_qdata": "torchao",
    r"\.(codes|codebooks)": "AQLM",
    r"\.weight\._(data|scale)": "quanto",
    r"\.weight_scales": "EETQ",
}
CURE = (
    "give the model's folder as it was before it was quantised, or one of bitsandbytes "
    "in 4 or 8 bits, or of floats of 8 bits with their scales, or a GGUF file."
)

#: What is read: bits of bitsandbytes, or how scales of floats lie.
Quantisation = bitsandbytes.Bits | float8.Scales


def quantisation(raw: Mapping[str, Any], where: str) -> Quantisation | None:
    """Read how the linear layers of a model are stored.

    Args:
        raw: The parsed config.json.
        where: Its path, for messages.

    Returns:
        None where the file says nothing.

    Raises:
        InputError: The weights were quantised in a way that is not read.

    >>> quantisation({"quantization_config": {"load_in_4bit": True}}, "config.json")
    4
    """
    if raw.get("quantization") is not None:  # its own field; newer files have both
        raise InputError(f"{where}: quantization by MLX is not supported: {CURE}")
    config = raw.get("quantization_config")
    if config is None:
        return None
    where = f"{where}: quantization_config"
    if not isinstance(config, Mapping):
        raise InputError(f"{where} must be an object, got {config!r:.40}.")
    field = Fields(config, where)
    method = field.get("quant_method")
    method = method if isinstance(method, str) else str(method or "")
    if method in float8.METHODS:
        return float8.stored_scales(field, method)
    if method == "bitsandbytes" or (
        not method and ("load_in_4bit" in config or "load_in_8bit" in config)
    ):
        return bitsandbytes.stored_bits(field)
    raise InputError(
        f"{where} of {method or 'no quant_method'!r:.60} is not supported: {CURE}"
    )


def dequantised(tensors: Tensors, stored: Quantisation | None) -> Tensors:
    """Return the same tensors, of which those that were quantised are floats.

    Args:
        tensors: The tensors of a checkpoint.
        stored: What `quantisation` says of it.

    Raises:
        InputError: They were quantised in a way that is not read or not said, or a part
            is missing or does not fit.

    >>> dequantised(Tensors("m", {"mlp.experts.up_proj_blocks": (4,)}, zip), None)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: m: mlp.experts.up_proj_blocks is of weights that ...
    """
    for name in tensors.shapes:
        for end, method in METHODS.items():
            if re.search(f"{end}$", name):
                raise InputError(
                    f"{tensors.where}: {name} is of weights that {method} quantised, "
                    f"which is not supported: {CURE}"
                )
    scales = stored if isinstance(stored, float8.Scales) else None
    if scales or tensors.float8 or float8.has_scales(tensors):
        return float8.dequantised(tensors, scales or float8.Scales())
    bits = None if isinstance(stored, float8.Scales) else stored
    return bitsandbytes.dequantised(tensors, bits)
