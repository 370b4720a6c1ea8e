"""Tiny random models in the file formats that the package reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

# A small vocabulary, for files without a tokenizer.
LLAMA = tiny.LLAMA | {"vocab_size": 96, "max_position_embeddings": 64}


@pytest.fixture
def llama_config() -> dict[str, Any]:
    return dict(LLAMA)


@pytest.fixture
def write_hf(tmp_path) -> Callable[..., Path]:
    """Writes config.json and model.safetensors; returns the folder."""

    def write(raw=None, tensors=None, name="hf") -> Path:
        raw = LLAMA if raw is None else raw
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(raw))
        tensors = tiny.random_llama(raw) if tensors is None else tensors
        save_file(tensors, folder / "model.safetensors")
        return folder

    return write


@pytest.fixture
def write_adapter(tmp_path) -> Callable[..., Path]:
    """Writes an adapter of some tensors and fields; returns the folder."""

    def write(tensors, **changes) -> Path:
        raw = json.dumps(tiny.ADAPTER | changes)
        (tmp_path / "adapter_config.json").write_text(raw)
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        return tmp_path

    return write


def permute(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """What llama.cpp's converter does to query and key matrices, in its own words."""
    shape = rows.shape
    halves = rows.reshape(num_heads, 2, shape[0] // num_heads // 2, *shape[1:])
    return halves.swapaxes(1, 2).reshape(shape)


@pytest.fixture
def write_gguf(tmp_path) -> Callable[..., Path]:
    """Writes a model given in Hugging Face's words as llama.cpp's converter would."""

    def write(
        raw, tensors, *, kind=None, arch=None, changes=None, tokenizer=None
    ) -> Path:
        path = tmp_path / "model.gguf"
        family = {"gemma3_text": "gemma3", "mistral": "llama"}.get(
            raw["model_type"], raw["model_type"]
        )
        out = gguf.GGUFWriter(path, arch or family)
        write_metadata(out, raw, changes or {})
        if tokenizer is not None:
            write_tokenizer(out, tokenizer)
        names = gguf.get_tensor_name_map(
            gguf.MODEL_ARCH[family.upper()], raw["num_hidden_layers"]
        )
        for name, tensor in tensors.items():
            if family.startswith("gemma") and name.endswith("norm.weight"):
                tensor = tensor + 1
            if family == "llama" and "q_proj" in name:
                tensor = permute(tensor, raw["num_attention_heads"])
            if family == "llama" and "k_proj" in name:
                tensor = permute(tensor, raw["num_key_value_heads"])
            # The library knows the names of every architecture.
            name = names.get_name(name, try_suffixes=(".weight", ".bias")) or name
            if kind is not None and tensor.ndim == 2:
                blocks = gguf.quants.quantize(tensor, kind)
                out.add_tensor(name, blocks, raw_dtype=kind)
            else:
                out.add_tensor(name, tensor)
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_tensors_to_file()
        out.close()
        return path

    return write


def write_metadata(out: gguf.GGUFWriter, raw: dict, changes: dict):
    """The keys of a converted model; `changes` are put over them by name."""
    rope = raw.get("rope_parameters", {})
    rope = rope.get("full_attention", rope)
    keys = {
        "context_length": raw["max_position_embeddings"],
        "embedding_length": raw["hidden_size"],
        "block_count": raw["num_hidden_layers"],
        "feed_forward_length": raw["intermediate_size"],
        "attention.head_count": raw["num_attention_heads"],
        "attention.head_count_kv": raw["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": raw["rms_norm_eps"],
        "attention.key_length": raw.get("head_dim"),
        "attention.value_length": raw.get("head_dim"),
        "attention.sliding_window": raw.get("sliding_window"),
        "attn_logit_softcapping": raw.get("attn_logit_softcapping"),
        "final_logit_softcapping": raw.get("final_logit_softcapping"),
        "rope.freq_base": rope.get("rope_theta", raw.get("rope_theta")),
    }
    if rope.get("rope_type") == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": rope["factor"]}
    add = {int: out.add_uint32, float: out.add_float32, str: out.add_string}
    for name, value in (keys | changes).items():
        if value is not None:
            add[type(value)](f"{out.arch}.{name}", value)


def write_tokenizer(out: gguf.GGUFWriter, file: Path):
    """The byte-level BPE of a tokenizer.json whose only control token is <eos>."""
    model = json.loads(file.read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    kinds = gguf.TokenType
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types(
        [kinds.CONTROL if token == "<eos>" else kinds.NORMAL for token in tokens]
    )
    out.add_token_merges([" ".join(merge) for merge in model["merges"]])
    out.add_eos_token_id(tokens.index("<eos>"))


@pytest.fixture
def random_llama_tensors() -> Callable[..., dict[str, np.ndarray]]:
    return tiny.random_llama
