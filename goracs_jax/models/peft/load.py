"""Load an adapter of PEFT into a model."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from flax import nnx

from goracs_jax.buckets import as_path
from goracs_jax.errors import InputError
from goracs_jax.models.checkpoint import open_safetensors
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.fused import split
from goracs_jax.models.lora_config import LoraConfig
from goracs_jax.models.peft.config import read_lora_config
from goracs_jax.models.peft.copies import usual_name, without_copies
from goracs_jax.models.peft.names import (
    PREFIX,
    Stored,
    is_untrained,
    peft_names,
    stored,
)
from goracs_jax.models.sharding import abstract_decoder
from goracs_jax.models.tensors import (
    Slices,
    Tensors,
    account,
    fill,
)

STEM = "adapter_model"

CURE = "use the adapter_config.json and the base that these tensors were saved with"

logger = logging.getLogger(__name__)


def load_adapter(
    model: Decoder,
    folder: str | Path,
    *,
    untrained: Literal["refuse", "warn"] = "refuse",
) -> Decoder:
    """Load an adapter into a model.

    Args:
        model: A decoder made with `lora=read_lora_config(folder)`, which is unchanged.
        folder: The PEFT folder: adapter_config.json and adapter_model.safetensors.
        untrained: What to do if every lora_B is zero, so that the adapter changes
            nothing: "refuse" it, or "warn" in the log, for an adapter that will be
            trained.

    Returns:
        A decoder with the adapter, which shares the frozen weights of `model`.

    Raises:
        InputError: The adapter does not fit the model; a tensor is missing, unexpected
            or of the wrong shape; or every lora_B is zero and `untrained` is "refuse".
    """
    folder = as_path(folder)
    lora = read_lora_config(folder).resolved(model.config)
    # Dropout matters only in training, so the model keeps its own.
    if replace(lora, dropout=model.lora.dropout) != model.lora:
        raise InputError(
            f"{folder}: the adapter is {lora}, the model was built with {model.lora}: "
            "load the model with lora=read_lora_config(folder)."
        )
    places = stored(model)
    expected = {name: s.shape for name, s in places.items() if not s.absent}
    tensors = without_copies(_open(folder, model.config), expected, model)
    account(expected, tensors, lambda name: False, cure=CURE)
    graph, skeleton, frozen = nnx.split(model, nnx.LoRAParam, ...)
    names, full = peft_names(skeleton), _padded(tensors, places)
    adapters = fill(skeleton, names, full, ignore=lambda name: False)
    model = nnx.merge(graph, adapters, frozen)
    if is_untrained(model):
        problem = f"{folder}: every lora_B is zero, so the adapter is untrained"
        if untrained == "refuse":
            raise InputError(f"{problem}: leave it out or give a trained one.")
        logger.warning("%s: training starts afresh with its lora_A.", problem)
    return model


def check_adapter(config: DecoderConfig, lora: LoraConfig, folder: str | Path) -> None:
    """Compare the shapes of an adapter with its tensors, before any memory is taken.

    A rank that is wrong could ask for more than there is.

    Args:
        config: Sizes of the model.
        lora: What `read_lora_config(folder)` says.
        folder: The PEFT folder.

    Raises:
        InputError: The linear layers that have an adapter are others in the tensors, or
            tensors have other shapes.
    """
    tensors = _open(as_path(folder), config)
    places = stored(abstract_decoder(config, None, lora=lora)).items()
    named = {usual_name(name): shape for name, shape in tensors.shapes.items()}
    wanted = {name: place.shape for name, place in places if not place.absent}
    # Of all else, such as whole tables, those that are copies are told apart later.
    expected, shapes = (
        {k: v for k, v in found.items() if ".lora_" in k or k in other}
        for found, other in ((wanted, named), (named, wanted))
    )
    account(expected, tensors._replace(shapes=shapes), lambda name: False, cure=CURE)


def _open(folder: Path, config: DecoderConfig) -> Tensors:
    """Open the tensors of an adapter, whose names must be those of a language model."""
    names = {path.name for path in folder.iterdir()}
    if not names & {f"{STEM}.safetensors", f"{STEM}.safetensors.index.json"}:
        pickle = f"only pickle: {STEM}.bin, which can run any code and is never opened"
        problem = pickle if f"{STEM}.bin" in names else f"no {STEM}.safetensors"
        raise InputError(
            f"{folder}: {problem}: load the adapter with PEFT and save it again with "
            "save_pretrained, which writes safetensors."
        )
    tensors = open_safetensors(folder, STEM)
    if not tensors.shapes:
        raise InputError(
            f"{folder}: {STEM}.safetensors has no tensors: save the adapter "
            "again, after gathering its parts where they were spread over devices."
        )
    wanted = [PREFIX + name for name in ("model.", "lm_head.")]
    other = [x for x in tensors.shapes if not x.startswith(tuple(wanted))]
    if len(other) == len(tensors.shapes):
        raise InputError(
            f"{folder}: no name of a tensor starts with {wanted[0]}, the first is "
            f"{other[0]}: save the adapter of an AutoModelForCausalLM with PEFT's "
            "save_pretrained, or rename its tensors."
        )
    named = (re.search(r"\.lora_[AB]\.([^.]+)\.weight$", x) for x in tensors.shapes)
    adapter = next((found[1] for found in named if found), "default")
    if adapter != "default":
        raise InputError(
            f"{folder}: names of tensors contain that of the adapter, {adapter!r}: "
            "save it with PEFT's save_pretrained, or rename the tensors."
        )
    return split(tensors, config) if config.fused else tensors


def _padded(tensors: Tensors, places: Mapping[str, Stored]) -> Tensors:
    """Give every layer a tensor of the same shape, with zeros where it has less."""

    def read(name: str, part: Slices = ()) -> np.ndarray:
        here = places[name]
        if here.absent:
            return np.zeros(here.place, np.float32)[part]
        if here.shape == here.place:
            return tensors.read(name, part)
        return here.pad(tensors.read(name))[part]

    shapes = {name: here.place for name, here in places.items()}
    return Tensors(tensors.where, shapes, read)
