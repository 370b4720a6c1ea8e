"""Refuse weights that were quantised in a way that is not read, by the method's name.

A config.json says so in its `quantization_config`, which `bitsandbytes.stored_bits`
reads. Where it is lost, the names of the tensors tell: next to the numbers of a matrix
lie their scales.
"""

import re

from goracs_jax.errors import InputError
from goracs_jax.models.tensors import Tensors

#: Ends of names, and the methods that write them.
METHODS = {
    r"\.(weight_scale|weight_scale_inv|input_scale|activation_scale)": "FP8",
    r"(_blocks|_scales)": "MXFP4",
    r"\.(qweight|qzeros)": "GPTQ or AWQ",
    r"\.weight_(packed|shape|zero_point)": "compressed-tensors",
    r"\.W_q": "HQQ",
}


def refuse_quantised(tensors: Tensors) -> None:
    """Refuse weights of other methods than bitsandbytes.

    Args:
        tensors: The tensors of a checkpoint.

    Raises:
        InputError: A tensor has the name of a quantised matrix, or of its scales.

    >>> refuse_quantised(Tensors("m", {"mlp.experts.up_proj_blocks": (4,)}, zip))
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: m: mlp.experts.up_proj_blocks is of weights that ...
    """
    for name in tensors.shapes:
        for end, method in METHODS.items():
            if re.search(f"{end}$", name):
                raise InputError(
                    f"{tensors.where}: {name} is of weights that {method} quantised, "
                    "which is not supported: give the model's folder as it was before "
                    "it was quantised, or one of bitsandbytes in 4 or 8 bits, or a "
                    "GGUF file."
                )
