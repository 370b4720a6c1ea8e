"""Adapters in the format of the PEFT library."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from goracs_jax.errors import InputError
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.lora import LoraConfig
from goracs_jax.models.tensors import fill, open_safetensors, read_json

# What would change the formula W x + (alpha / r) B A x, and the value that does not.
PLAIN: Mapping[str, Any] = {
    "use_dora": False,
    "use_rslora": False,
    "bias": "none",
    "rank_pattern": {},
    "alpha_pattern": {},
    "fan_in_fan_out": False,
    "layers_to_transform": None,
    "modules_to_save": None,
}


def read_lora_config(folder: str | Path) -> LoraConfig:
    """Reads rank, scale and targets from an adapter's adapter_config.json.

    Args:
        folder: The PEFT folder.

    Returns:
        The configuration to give to `load_decoder` before `load_adapter`.

    Raises:
        InputError: If the file is absent, the adapter is not plain LoRA, or it targets
            a layer that cannot carry one.
    """
    raw, where = read_json(Path(folder) / "adapter_config.json")
    if raw.get("peft_type") != "LORA":
        raise InputError(
            f"{where}: peft_type {raw.get('peft_type')!r} is not supported: use LORA."
        )
    for name, plain in PLAIN.items():
        if raw.get(name, plain) not in (plain, None, [], {}):
            raise InputError(
                f"{where}: {name} {raw[name]!r} is not supported: train the adapter "
                f"with {name} {plain!r}."
            )
    targets = raw.get("target_modules")
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if not isinstance(targets, list) or not all(isinstance(t, str) for t in targets):
        raise InputError(
            f"{where}: target_modules must be a list of names, got {targets!r}: name "
            "the layers, such as q_proj and v_proj."
        )
    if not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise InputError(
            f"{where}: r and lora_alpha must be numbers, got {rank!r} and {alpha!r}."
        )
    try:
        return LoraConfig(r=rank, alpha=float(alpha), targets=tuple(sorted(targets)))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def load_adapter(model: Decoder, folder: str | Path) -> Decoder:
    """Puts a trained adapter into a model.

    Args:
        model: A decoder made with `lora=read_lora_config(folder)`.
        folder: The PEFT folder: adapter_config.json and adapter_model.safetensors.

    Returns:
        A decoder that shares the frozen weights of `model`; `model` is unchanged.

    Raises:
        InputError: If the adapter does not fit the model, a tensor is missing,
            unexpected or of the wrong shape, or every lora_B is zero.
    """
    folder = Path(folder)
    lora = read_lora_config(folder)
    if lora != model.lora:
        raise InputError(
            f"{folder}: the adapter is {lora}, the model was built with {model.lora}: "
            "load the model with lora=read_lora_config(folder)."
        )
    graph, skeleton, frozen = nnx.split(model, nnx.LoRAParam, ...)
    names = {
        path: _peft_name(path)
        for path in (".".join(map(str, p)) for p, _ in nnx.to_flat_state(skeleton))
    }
    tensors = open_safetensors(folder, "adapter_model")
    adapters = fill(skeleton, names, tensors, ignore=lambda name: False)
    b = [w for path, w in nnx.to_flat_state(adapters) if path[-1] == "lora_b"]
    if not any(bool(jnp.any(w[...])) for w in b):
        raise InputError(
            f"{folder}: every lora_B is zero, so the adapter is untrained: leave it "
            "out or give a trained one."
        )
    return nnx.merge(graph, adapters, frozen)


def _peft_name(path: str) -> str:
    """Name in the file of "layers.attention.q_proj.lora_a" and its like.

    >>> _peft_name("layers.mlp.up_proj.lora_b")
    'base_model.model.model.layers.{}.mlp.up_proj.lora_B.weight'
    """
    _, block, name, matrix = path.split(".")
    block = {"attention": "self_attn", "mlp": "mlp"}[block]
    part = {"lora_a": "lora_A", "lora_b": "lora_B"}[matrix]
    return f"base_model.model.model.layers.{{}}.{block}.{name}.{part}.weight"
