"""Variants of LoRA on SmolLM2-135M: gradient norms over all that PEFT trains."""

from copy import deepcopy

import pytest
import torch
from adapters import adapted, load, same_norms
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = {
    "dora": {"use_dora": True, "use_rslora": True, "target_modules": "all-linear"},
    "tokens_patterns": {
        "trainable_token_indices": [3, 17, 40000],
        "rank_pattern": {"v_proj": 2, r"layers\.2\d\..*q_proj": 6},
        "alpha_pattern": {r"layers\.[0-9]\..*": 3},
        "layers_to_transform": list(range(0, 30, 2)),
        "lora_bias": True,
    },
}


@pytest.fixture(scope="module")
def base(smollm2):
    return AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_norms(smollm2, base, tmp_path, kind):
    changes = KINDS[kind]
    theirs = adapted(deepcopy(base), tmp_path / "adapter", size=0.01, **changes)
    ours = load(smollm2, tmp_path / "adapter")
    # Thirty layers of float32.
    same_norms(ours, theirs, (24, 24), rtol=1e-3)
