"""Drop what some tools save with an adapter: second names, and copies of the base."""

import re
from collections.abc import Callable, Container

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from goracs_jax.errors import InputError
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.lora import ADAPTERS
from goracs_jax.models.peft.names import PREFIX, peft_name
from goracs_jax.models.stored_names import stored_names
from goracs_jax.models.targets import TABLES
from goracs_jax.models.tensors import Tensors, renamed, unstacked

#: What PEFT puts between the name of a module of the base and that of its weight.
WRAPPERS = re.compile(r"\.(original_module|token_adapter\.base_layer|base_layer)(?=\.)")


def without_copies(
    tensors: Tensors, expected: Container[str], model: Decoder
) -> Tensors:
    """Give an adapter's tensors the usual names, and drop those that say nothing new.

    Args:
        tensors: The tensors of a file.
        expected: The names of those that the adapter has.
        model: The model that has the adapter.

    Raises:
        InputError: A tensor of the base differs from that of the model, or two tensors
            with different numbers have one name.
    """
    tied = model.config.tie_embeddings
    head, embed = peft_name("head_rows"), peft_name("embed_rows")

    def rename(name: str) -> str:
        name = usual_name(name)
        # Rows of tied tables are those of the embedding, unless trained apart.
        return embed if tied and name == head and head not in expected else name

    tensors = renamed(_without_equals(tensors, rename), rename)
    base, shapes = _base(model), dict(tensors.shapes)
    for name in tensors.shapes:
        original = WRAPPERS.sub("", name)
        if name not in expected and original in base:
            _check(tensors, name, base[original]())
            del shapes[name]
    return tensors._replace(shapes=shapes)


def usual_name(name: str) -> str:
    """Drop what other tools leave in the names: that of the adapter, "default".

    >>> usual_name("model.layers.0.self_attn.q_proj.lora_A.default.weight")
    'model.layers.0.self_attn.q_proj.lora_A.weight'
    """
    name = re.sub(r"\.default(?=\.|$)", "", name).replace(".modules_to_save.", ".")
    return re.sub(r"(lora_magnitude_vector)\.weight$", r"\1", name)


def _without_equals(tensors: Tensors, rename: Callable[[str], str]) -> Tensors:
    """Keep one of the tensors that get the same name, if they are equal."""
    kept: dict[str, str] = {}
    for name in tensors.shapes:
        first = kept.setdefault(rename(name), name)
        if not (
            first == name or np.array_equal(tensors.read(first), tensors.read(name))
        ):
            raise InputError(
                f"{tensors.where}: {first} and {name} are the same tensor, but their "
                "numbers differ: remove one of them."
            )
    return tensors._replace(shapes={x: tensors.shapes[x] for x in kept.values()})


def _base(model: Decoder) -> dict[str, Callable[[], jax.Array]]:
    """Return the tensors of a model's base by their names in an adapter's file."""
    names = stored_names(model.config, gguf=False)
    _, _, weights = nnx.split(model, ADAPTERS, ...)
    found = unstacked(weights, names)
    if model.config.tie_embeddings:
        found[names["head"]] = found[names["embed"]]
    return {PREFIX + name: tensor for name, tensor in found.items()}


def _check(tensors: Tensors, name: str, base: jax.Array) -> None:
    """Check that a copy of a tensor of the base is equal to it."""
    shape, cure = tensors.shapes[name], "give the model that was the base"
    copy = jnp.asarray(tensors.read(name)) if shape == base.shape else None
    tables = {f"{PREFIX}{module}.weight": module for module in TABLES.values()}
    if copy is None:
        problem = f"has the shape {shape}, in the model it is {base.shape}"
        if WRAPPERS.sub("", name) in tables and shape[1:] == base.shape[1:]:
            problem = f"has {shape[0]} rows, the model has {base.shape[0]}"
            cure = "resize the base as in training, save it, and give it as the model"
    elif jnp.array_equal(copy.astype(base.dtype), base):
        return
    elif jnp.issubdtype(copy.dtype, jnp.floating) and jnp.array_equal(
        base.astype(copy.dtype), copy
    ):
        # PEFT would read it, and compute with fewer digits than the model has.
        problem = f"is the tensor of the model, rounded to {copy.dtype}"
        cure = "remove it from the file, or give the model with weights of that type"
    else:
        problem = "differs from the tensor of the model"
        if name in tables:
            last = tables[name].rpartition(".")[2]
            problem += f", and modules_to_save does not name {last}"
            cure = f"name it there if it was trained, or {cure}"
    raise InputError(f"{tensors.where}: {name} {problem}: {cure}.")
