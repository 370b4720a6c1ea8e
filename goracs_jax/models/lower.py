"""The states of texts that a decoder's lower layers have read already."""

from typing import NamedTuple, TypeAlias

from jaxtyping import Array, Float, Int

from goracs_jax.shapes import AnyArray


class LowerStates(NamedTuple):
    """States before the first layer that has an adapter; see `Decoder.lower`."""

    states: Float[AnyArray, "*batch time dim"]


#: What a decoder reads: tokens, or what its lower layers have made of them.
Text: TypeAlias = Int[Array, "*batch time"] | LowerStates
