"""Read and write adapters in the format of the PEFT library."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree
from safetensors.numpy import save

from goracs_jax.errors import InputError
from goracs_jax.files import atomic
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.lora import LoraConfig
from goracs_jax.models.tensors import fill, open_safetensors, read_json, spread

logger = logging.getLogger(__name__)

# Options that would change the formula W x + (alpha / r) B A x, with the values that
# leave it unchanged.
PLAIN: Mapping[str, Any] = {
    "use_dora": False,
    "use_rslora": False,
    "use_qalora": False,
    "alora_invocation_tokens": None,
    "bias": "none",
    "lora_bias": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "fan_in_fan_out": False,
    "layers_to_transform": None,
    "layer_replication": None,
    "exclude_modules": None,
    "target_parameters": None,
    "trainable_token_indices": None,
    "modules_to_save": None,
}


def read_lora_config(folder: str | Path) -> LoraConfig:
    """Read rank, scale, targets and dropout from an adapter's adapter_config.json.

    Args:
        folder: The PEFT folder.

    Returns:
        The configuration to give to `load_decoder` before `load_adapter`.

    Raises:
        InputError: The file is missing, the adapter is not plain LoRA, or it targets a
            layer that cannot have one.
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
    rank: Any = raw.get("r")
    alpha: Any = raw.get("lora_alpha")
    dropout: Any = raw.get("lora_dropout", 0.0)
    if not isinstance(targets, list) or not all(isinstance(t, str) for t in targets):
        raise InputError(
            f"{where}: target_modules must be a list of names, got {targets!r}: name "
            "the layers, such as q_proj and v_proj."
        )
    if not isinstance(rank, int) or not all(
        isinstance(x, int | float) for x in (alpha, dropout)
    ):
        raise InputError(
            f"{where}: r, lora_alpha and lora_dropout must be numbers, got {rank!r}, "
            f"{alpha!r} and {dropout!r}: correct the file."
        )
    try:
        return LoraConfig(
            r=rank,
            alpha=float(alpha),
            targets=tuple(sorted(targets)),
            dropout=float(dropout),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


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
    folder = Path(folder)
    lora = read_lora_config(folder)
    # Dropout matters only in training, so the model keeps its own.
    if replace(lora, dropout=model.lora.dropout) != model.lora:
        raise InputError(
            f"{folder}: the adapter is {lora}, the model was built with {model.lora}: "
            "load the model with lora=read_lora_config(folder)."
        )
    graph, skeleton, frozen = nnx.split(model, nnx.LoRAParam, ...)
    tensors = open_safetensors(folder, "adapter_model")
    names = _peft_names(skeleton)
    adapters = fill(skeleton, names, tensors, ignore=lambda name: False)
    if _is_untrained(adapters):
        problem = f"{folder}: every lora_B is zero, so the adapter is untrained"
        if untrained == "refuse":
            raise InputError(f"{problem}: leave it out or give a trained one.")
        logger.warning("%s: training starts afresh with its lora_A.", problem)
    return nnx.merge(graph, adapters, frozen)


def save_adapter(model: Decoder, folder: str | Path, base: str = "") -> None:
    """Write the adapters of a model in the format of PEFT.

    If every lora_B is zero, a warning is logged: training may start from such an
    adapter, but `load_adapter` refuses it as a trained one.

    Args:
        model: A decoder with adapters.
        folder: Folder for adapter_config.json and adapter_model.safetensors.
        base: Path of the frozen weights, for the field base_model_name_or_path.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    adapters = nnx.state(model, nnx.LoRAParam)
    if _is_untrained(adapters):
        logger.warning("%s: every lora_B is zero: the adapter is untrained.", folder)
    alpha = float(model.lora.alpha)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "inference_mode": True,
        "init_lora_weights": True,
        "r": model.lora.r,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": model.lora.dropout,
        "target_modules": list(model.lora.targets),
        "bias": "none",
    }
    tensors = spread(adapters, _peft_names(adapters))
    made = {name: tensor() for name, tensor in tensors.items()}
    with atomic(folder / "adapter_config.json") as file:
        file.write((json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    with atomic(folder / "adapter_model.safetensors") as file:
        file.write(save(made, metadata={"format": "pt"}))


def _is_untrained(adapters: PyTree) -> bool:
    b = [w for path, w in nnx.to_flat_state(adapters) if path[-1] == "lora_b"]
    return not any(bool(jnp.any(w[...])) for w in b)


def _peft_names(adapters: PyTree) -> dict[str, str]:
    """Map the path of each adapter in the module to its name in the file."""
    paths = (".".join(map(str, path)) for path, _ in nnx.to_flat_state(adapters))
    return {path: _peft_name(path) for path in paths}


def _peft_name(path: str) -> str:
    """Return the name in the file for a path in the module, "{}" for the layer.

    >>> _peft_name("layers.mlp.up_proj.lora_b")
    'base_model.model.model.layers.{}.mlp.up_proj.lora_B.weight'
    """
    _, block, name, matrix = path.split(".")
    block = {"attention": "self_attn", "mlp": "mlp"}[block]
    part = {"lora_a": "lora_A", "lora_b": "lora_B"}[matrix]
    return f"base_model.model.model.layers.{{}}.{block}.{name}.{part}.weight"
