"""Merge adapters into the weights and write one plain Hugging Face folder."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from goracs_jax.buckets import as_path, writable
from goracs_jax.errors import InputError
from goracs_jax.files import atomic, together
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.folder import read_json
from goracs_jax.models.fused import join
from goracs_jax.models.hf_config import read_decoder_config
from goracs_jax.models.hf_multimodal import text_config
from goracs_jax.models.lora import ADAPTERS
from goracs_jax.models.stacked import unstack
from goracs_jax.models.stored_names import stored_names
from goracs_jax.models.tensors import spread
from goracs_jax.models.tokenizer import load_tokenizer
from goracs_jax.models.variants import check_merge, merge_layers, merge_tables

# Like transformers, write files of at most 5 GB.
SHARD_BYTES = 5 * 10**9

# Special tokens whose ids config.json contains.
SPECIAL = ("bos", "eos", "pad")

# The files of a model's folder that are copied as they are.
COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)

#: Weights that an earlier model left would be read in place of new ones.
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")


def merge_adapters(model: Decoder) -> Decoder:
    """Merge the adapters into the weights: W + (alpha / r) A B in every layer.

    Variants are merged by their own formulas, and trained tables replace those of the
    base. The sum is computed in float32 and rounded to the type of the weights.

    Args:
        model: A decoder with adapters, which is unchanged.

    Returns:
        A model that computes the same, up to rounding, and whose adapters are zero.

    Raises:
        InputError: The adapter adds a bias to a layer that has none, or trains one of
            two tables that are tied.

    >>> import jax
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> merged = merge_adapters(model)
    >>> float(abs(merged.layers.attention.q_proj.lora_b[...]).max())
    0.0
    """
    check_merge(model.config, model.lora)
    model = nnx.merge(*nnx.split(model))
    merge_layers(model)
    merge_tables(model)
    return model


def save_merged(
    model: Decoder, base: str | Path, folder: str | Path, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a model with merged adapters as a folder that transformers can load.

    All of its files appear, or none does.

    Args:
        model: A decoder with adapters.
        base: The model's source. A Hugging Face folder gives config.json and the
            tokenizer; from a GGUF file, both are made.
        folder: Folder for config.json, safetensors and tokenizer.
        shard_bytes: Largest size of a file of weights; more weights are split.

    Raises:
        InputError: The adapter cannot be merged, or the base not be written; nothing
            is written then.
    """
    base = as_path(base)
    raw = check_merged(model, base)
    tokenizer = load_tokenizer(base) if base.suffix == ".gguf" else None
    if tokenizer is not None:
        raw |= {f"{t}_token_id": getattr(tokenizer, f"{t}_token_id") for t in SPECIAL}
    with writable(folder) as here:
        here.mkdir(parents=True, exist_ok=True)
        with together(here, WEIGHTS, seal="config.json") as new:
            if tokenizer is not None:
                tokenizer.save_pretrained(os.fspath(new))
            else:
                for name in COPIED:
                    if (base / name).is_file():
                        shutil.copyfile(base / name, new / name)
            _save_weights(merge_adapters(model), new, shard_bytes)
            with atomic(new / "config.json") as file:
                file.write((json.dumps(raw, indent=2) + "\n").encode())


def check_merged(model: Decoder, base: str | Path) -> dict[str, Any]:
    """Check that a model with merged adapters can be written.

    Args:
        model: A decoder with adapters.
        base: The model's source.

    Returns:
        The config.json to write, without the ids of special tokens from a GGUF file.

    Raises:
        InputError: The adapter adds a bias to a layer that has none, or trains tables
            apart that are tied; a file that is to be copied is damaged; or `base` is a
            GGUF file of another family than Llama, or has RoPE scaling.
    """
    check_merge(model.config, model.lora)
    base = as_path(base)
    if base.suffix == ".gguf":
        raw = _llama_config(model.config, base)
    else:
        raw = dict(text_config(*read_json(base / "config.json")))
        for name in COPIED:
            if name.endswith(".json") and (base / name).is_file():
                read_json(base / name)
        raw.pop("torch_dtype", None)  # the old name of dtype
        raw.pop("quantization_config", None)  # what is written are floats
    return raw | {"dtype": str(model.embed.dtype)}


def _llama_config(config: DecoderConfig, where: Path) -> dict[str, Any]:
    """Make the config.json of a model from a GGUF file."""
    raw = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_positions,
        # Both spellings: transformers 5 reads the second one.
        "rope_theta": config.rope.theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope.theta},
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
    }
    if read_decoder_config(raw, str(where)) != config:
        raise InputError(
            f"{where}: from GGUF files, only Llama models without RoPE scaling can be "
            "merged: give the model's Hugging Face folder."
        )
    return raw


def _save_weights(model: Decoder, folder: Path, shard_bytes: int) -> None:
    """Write one file, or several of at most `shard_bytes` with their index."""
    _, _, state = nnx.split(model, ADAPTERS, ...)
    names = stored_names(model.config, gguf=False)
    parts: list[Path] = []
    home: dict[str, int] = {}  # from a tensor's name to the number of its file
    total = 0
    tensors = spread(state, names)
    if model.config.fused:
        tensors = join(tensors)
    if model.config.mixture is not None:
        tensors = unstack(tensors, model.config.mixture)
    for shard in _shards(tensors, shard_bytes):
        parts.append(folder / f"model-{len(parts) + 1:05d}.safetensors.part")
        save_file(shard, os.fspath(parts[-1]), metadata={"format": "pt"})
        home |= dict.fromkeys(shard, len(parts))
        total += sum(tensor.nbytes for tensor in shard.values())
    if len(parts) == 1:
        os.replace(parts[0], folder / "model.safetensors")
        return
    final = [
        f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))
    ]
    for part, name in zip(parts, final, strict=True):
        os.replace(part, folder / name)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {tensor: final[i - 1] for tensor, i in home.items()},
    }
    with atomic(folder / "model.safetensors.index.json") as file:
        file.write((json.dumps(index, indent=2) + "\n").encode())


def _shards(
    tensors: Mapping[str, Callable[[], np.ndarray]], shard_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Group tensors, in their order, into files with at least one tensor each."""
    shard: dict[str, np.ndarray] = {}
    for name, make in tensors.items():
        tensor = make()
        if (
            shard
            and sum(t.nbytes for t in shard.values()) + tensor.nbytes > shard_bytes
        ):
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard
