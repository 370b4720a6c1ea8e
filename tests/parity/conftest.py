"""Against transformers and PEFT on torch: `make parity`, never part of `make test`.

Real weights are the demo's, from its cache or the package index; two environment
variables name others.
"""

import os
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
import torch
from families import FAMILIES, PLAIN
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from goracs_jax.data.demo import fetch


@pytest.fixture(scope="module", autouse=True)
def _drop_programs():
    """Return the memory maps of compiled programs, of which Linux gives 65,530.

    One file alone compiles programs of 38,000; a process that has no maps left crashes.
    """
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file."""
    return Path(os.environ.get("GORACS_SMOLLM2_GGUF") or fetch().model)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as a sentence-transformers folder."""
    return Path(os.environ.get("GORACS_MINILM") or fetch().encoder)


@pytest.fixture
def save_decoder(tmp_path) -> Callable[..., tuple[PreTrainedModel, Path]]:
    """A random model as torch module and as the folder that transformers writes."""

    def save(family: str = "llama", **changes) -> tuple[PreTrainedModel, Path]:
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
            "pad_token_id": None,
            "rope_parameters": PLAIN,
        }
        config = AutoConfig.for_model(**(sizes | FAMILIES[family] | changes))
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():  # biases are made zero, norms one: neither would show
            for weight in model.parameters():
                if weight.ndim == 1:
                    weight += 0.3 * torch.randn_like(weight)
        folder = tmp_path / family
        model.save_pretrained(folder)
        return model, folder

    return save
