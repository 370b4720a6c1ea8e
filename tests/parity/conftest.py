"""Against transformers and PEFT on torch: `make parity`, never part of `make test`.

Real weights are the demo's, from its cache or the package index; two environment
variables name others.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from goracs_jax.data.demo import fetch


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file."""
    return Path(os.environ.get("GORACS_SMOLLM2_GGUF") or fetch().model)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as a sentence-transformers folder."""
    return Path(os.environ.get("GORACS_MINILM") or fetch().encoder)


@pytest.fixture
def save_llama(tmp_path) -> Callable[..., tuple[LlamaForCausalLM, Path]]:
    """A random Llama as torch module and as the folder that transformers writes."""

    def save(*, old_rope: bool = False, **changes) -> tuple[LlamaForCausalLM, Path]:
        torch.manual_seed(0)
        sizes = {
            "vocab_size": 96,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "tie_word_embeddings": False,
            # Weights of size one: a wrong angle or head must show in the logits.
            "initializer_range": 0.2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
        }
        model = LlamaForCausalLM(LlamaConfig(**(sizes | changes))).eval()
        folder = tmp_path / "llama"
        model.save_pretrained(folder)
        config = folder / "config.json"
        raw = json.loads(config.read_text())
        assert "rope_theta" not in raw  # transformers 5 writes the new spelling
        if old_rope:  # that of transformers 4
            raw["rope_theta"] = raw.pop("rope_parameters")["rope_theta"]
            config.write_text(json.dumps(raw))
        return model, folder

    return save
