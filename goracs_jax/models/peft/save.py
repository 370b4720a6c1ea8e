"""Write adapters in the format of PEFT."""

import json
import logging
from pathlib import Path
from typing import Any

from flax import nnx
from safetensors.numpy import save

from goracs_jax.buckets import writable
from goracs_jax.files import atomic
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.lora_config import LoraConfig
from goracs_jax.models.peft.fused import fused_adapter
from goracs_jax.models.peft.names import is_untrained, peft_names, stored
from goracs_jax.models.targets import TABLES
from goracs_jax.models.tensors import spread

logger = logging.getLogger(__name__)


def save_adapter(model: Decoder, folder: str | Path, base: str = "") -> None:
    """Write the adapters of a model in the format of PEFT.

    If every lora_B is zero, a warning is logged: training may start from such an
    adapter, but `load_adapter` refuses it as a trained one.

    Args:
        model: A decoder with adapters.
        folder: Folder for adapter_config.json and adapter_model.safetensors.
        base: Path of the frozen weights, for the field base_model_name_or_path.
    """
    if is_untrained(model):
        logger.warning("%s: every lora_B is zero: the adapter is untrained.", folder)
    adapters, places = nnx.state(model, nnx.LoRAParam), stored(model)
    tensors = spread(adapters, peft_names(adapters))
    made = {
        name: places[name].cut(tensor())
        for name, tensor in tensors.items()
        if not places[name].absent
    }
    config = peft_config(model.lora) | {"base_model_name_or_path": base or None}
    if model.config.fused:
        made, fields = fused_adapter(made, model.lora, model.config)
        config |= fields
    with writable(folder) as here:
        here.mkdir(parents=True, exist_ok=True)
        with atomic(here / "adapter_config.json") as file:
            file.write((json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
        with atomic(here / "adapter_model.safetensors") as file:
            file.write(save(made, metadata={"format": "pt"}))


def peft_config(lora: LoraConfig) -> dict[str, Any]:
    """Return the fields of adapter_config.json for a configuration without rules."""
    number = lambda x: int(x) if float(x).is_integer() else float(x)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "init_lora_weights": True,
        "r": lora.r,
        "lora_alpha": number(lora.alpha),
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.targets),
        "bias": "none",
    }
    if lora.sites:
        other = lambda of, usual: {
            site.full_name: of(site) for site in lora.sites if of(site) != usual
        }
        layers = sorted({site.layer for site in lora.sites})
        if len(lora.sites) == len(lora.targets) * len(layers):  # all in some layers
            config["layers_to_transform"] = layers
        else:
            config["target_modules"] = [site.full_name for site in lora.sites]
        config["rank_pattern"] = other(lambda site: site.r, lora.r)
        alphas = other(lambda site: number(site.alpha), number(lora.alpha))
        config["alpha_pattern"] = alphas
    last = lambda table: TABLES[table].rpartition(".")[2]
    variants = {
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
        "lora_bias": lora.bias,
        "modules_to_save": [last(table) for table in lora.tables],
        "trainable_token_indices": {last(t): list(ids) for t, ids in lora.tokens},
    }
    return config | {name: value for name, value in variants.items() if value}
