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
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


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


def permute(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """What llama.cpp's converter does to query and key matrices, in its own words."""
    shape = rows.shape
    halves = rows.reshape(num_heads, 2, shape[0] // num_heads // 2, *shape[1:])
    return halves.swapaxes(1, 2).reshape(shape)


@pytest.fixture
def write_gguf(tmp_path) -> Callable[..., Path]:
    """Writes tensors given under Hugging Face's names as llama.cpp would."""

    def write(raw, tensors, *, kind=None, arch="llama", rope=None) -> Path:
        path = tmp_path / "model.gguf"
        out = gguf.GGUFWriter(path, arch)
        out.add_context_length(raw["max_position_embeddings"])
        out.add_embedding_length(raw["hidden_size"])
        out.add_block_count(raw["num_hidden_layers"])
        out.add_feed_forward_length(raw["intermediate_size"])
        out.add_head_count(raw["num_attention_heads"])
        out.add_head_count_kv(raw["num_key_value_heads"])
        out.add_layer_norm_rms_eps(raw["rms_norm_eps"])
        out.add_rope_freq_base(raw["rope_theta"])
        if rope is not None:
            out.add_rope_scaling_type(rope)
        for name, tensor in tensors.items():
            name = name.replace("model.layers.", "blk.")
            for hf, short in GGUF_NAMES.items():
                name = name.replace(hf, short)
            if "attn_q" in name:
                tensor = permute(tensor, raw["num_attention_heads"])
            if "attn_k" in name:
                tensor = permute(tensor, raw["num_key_value_heads"])
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


@pytest.fixture
def random_llama_tensors() -> Callable[..., dict[str, np.ndarray]]:
    return tiny.random_llama
