"""Where the parts of an adapter are in a file of PEFT, and in a model."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from goracs_jax.models.decoder import Decoder
from goracs_jax.models.lora import LoRALinear
from goracs_jax.models.targets import TABLES, full_name

PREFIX = "base_model.model."

#: The parts of an adapter of a linear layer: our names and those in a file.
PARTS = {
    "lora_a": "lora_A.weight",
    "lora_b": "lora_B.weight",
    "lora_bias": "lora_B.bias",
    "lora_m": "lora_magnitude_vector",
}
#: The parts of an adapter of a table.
TABLE_PARTS = {
    "table": "weight",
    "rows": "token_adapter.trainable_tokens_delta",
}


class Stored(NamedTuple):
    """A tensor of an adapter's file, and the shape of its place in the model.

    It is smaller than its place where its layer has a smaller rank than others, and
    absent where its layer has no adapter.
    """

    shape: tuple[int, ...]
    place: tuple[int, ...]
    absent: bool = False

    def cut(self, tensor: np.ndarray) -> np.ndarray:
        """Return the part of a place that is in the file."""
        return np.ascontiguousarray(tensor[tuple(map(slice, self.shape))])

    def pad(self, tensor: np.ndarray) -> np.ndarray:
        """Return a tensor from the file with zeros around it."""
        missing = zip(self.shape, self.place, strict=True)
        return np.pad(tensor, [(0, place - size) for size, place in missing])


def peft_names(adapters: PyTree) -> dict[str, str]:
    """Map the path of each adapter in the module to its name in the file."""
    paths = (".".join(map(str, path)) for path, _ in nnx.to_flat_state(adapters))
    return {path: peft_name(path) for path in paths}


def peft_name(path: str) -> str:
    """Return the name in the file for a path in the module, "{}" for the layer.

    >>> peft_name("layers.mlp.up_proj.lora_b")
    'base_model.model.model.layers.{}.mlp.up_proj.lora_B.weight'
    >>> peft_name("head_table")
    'base_model.model.lm_head.weight'
    """
    if not path.startswith("layers."):
        table, _, part = path.partition("_")
        return f"{PREFIX}{TABLES[table]}.{TABLE_PARTS[part]}"
    _, _, name, part = path.split(".")
    return f"{PREFIX}{full_name(name, '{}')}.{PARTS[part]}"


def stored(model: Decoder) -> dict[str, Stored]:
    """Return what the file of a model's adapter has for every layer, by its name."""
    found, num_layers = {}, model.config.num_layers
    for keys, leaf in nnx.to_flat_state(nnx.state(model, nnx.LoRAParam)):
        path = ".".join(map(str, keys))
        if not path.startswith("layers."):
            found[peft_name(path)] = Stored(leaf.shape, leaf.shape)
            continue
        for layer, r in enumerate(model.lora.ranks(str(keys[-2]), num_layers)):
            place = shape = leaf.shape[1:]
            if keys[-1] == "lora_a":
                place, shape = place[::-1], (r, place[0])
            if keys[-1] == "lora_b":
                place, shape = place[::-1], (place[1], r)
            found[peft_name(path).format(layer)] = Stored(shape, place, absent=r == 0)
    return found


def count_trained(model: Decoder) -> int:
    """Count the numbers of a model's adapter, without what pads smaller ranks."""
    return sum(math.prod(s.shape) for s in stored(model).values() if not s.absent)


def is_untrained(model: Decoder) -> bool:
    """Tell whether an adapter changes nothing, because every lora_B is zero."""
    if model.lora.tables or model.lora.tokens:
        return False
    for _, layer in nnx.iter_modules(model):
        if not isinstance(layer, LoRALinear):
            continue
        if bool(jnp.any(layer.lora_b[...])):
            return False
        if layer.has_lora_bias and bool(jnp.any(layer.lora_bias[...])):
            return False
        # PEFT computes the norms that m starts at in its own order.
        if layer.dora and bool(jnp.any(jnp.abs(layer.ratio() - 1) > 1e-5)):
            return False
    return True
