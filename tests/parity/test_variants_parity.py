"""Variants of LoRA as PEFT saves them: logits, gradient norms, and what we write."""

import numpy as np
import peft
import pytest
from adapters import adapted, load, logits_of, same_logits, same_norms
from transformers import AutoModelForCausalLM

from goracs_jax.errors import InputError
from goracs_jax.models import save_adapter

pytestmark = pytest.mark.filterwarnings("ignore")

LAST = r"model\.layers\.2\.(self_attn\.[qv]|mlp\.up)_proj"
KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "rank_pattern": {"rank_pattern": {"layers.0.self_attn.q_proj": 8, "v_proj": 2}},
    "alpha_pattern": {"alpha_pattern": {r"layers\.[01]\..*": 3}},
    "dora": {"use_dora": True},
    "lora_bias": {"lora_bias": True},
    "exclude": {"target_modules": "all-linear", "exclude_modules": ["down_proj"]},
    "exclude_regex": {"exclude_modules": r".*\.0\..*"},
    "layers": {"layers_to_transform": [0, 2]},
    "one_layer": {"layers_to_transform": 2, "layers_pattern": "layers"},
    "full": {"target_modules": ["model.layers.2.self_attn.v_proj", "mlp.gate_proj"]},
    "regex": {"target_modules": LAST},
    "all_linear": {"target_modules": "all-linear"},
    "head": {"modules_to_save": ["lm_head"]},
    "embed": {"modules_to_save": ["embed_tokens"]},
    "both": {"modules_to_save": ["lm_head", "model.embed_tokens"]},
    "tokens": {"trainable_token_indices": [3, 17, 90]},
    "tokens_of_both": {
        "trainable_token_indices": {"embed_tokens": [3, 17], "lm_head": [5, 17, 80]}
    },
    "wider_than_layers": {"r": 80, "lora_alpha": 80},
    "negative_scale": {"lora_alpha": -2.5},
    "eva_like": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    # Together.
    "dora_ranks_layers": {
        "use_dora": True,
        "rank_pattern": {"q_proj": 7},
        "layers_to_transform": [1, 2],
    },
    "rslora_regex": {"use_rslora": True, "target_modules": LAST},
    "tables": {"modules_to_save": ["lm_head"], "trainable_token_indices": [1, 2]},
    "bias_alphas": {
        "lora_bias": True,
        "use_rslora": True,
        "alpha_pattern": {"v_proj": 1, "2.self_attn.q_proj": 5},
        "layers_to_transform": [0, 2],
    },
    "dora_all": {
        "use_dora": True,
        "use_rslora": True,
        "target_modules": "all-linear",
        "exclude_modules": [r"layers.1.mlp.up_proj", "o_proj"],
        "alpha_pattern": {"down_proj": 2},
        "modules_to_save": ["embed_tokens"],
    },
}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_variant(save_decoder, tmp_path, kind, tied):
    base, folder = save_decoder(tie_word_embeddings=tied)
    theirs = adapted(base, tmp_path / "adapter", **KINDS[kind])
    if tied and kind == "tables":  # PEFT gives the tensors of this case other names
        with pytest.raises(InputError, match="train one of them"):
            load(folder, tmp_path / "adapter")
        return
    ids = np.random.default_rng(0).integers(0, 96, (2, 30))
    ours, expected = load(folder, tmp_path / "adapter"), logits_of(theirs, ids)
    same_logits(ours, expected, ids)
    same_norms(ours, theirs, (5, 17, 30), rtol=1e-4)

    # What is written here is the same adapter to PEFT.
    save_adapter(ours, tmp_path / "ours", str(folder))
    again = AutoModelForCausalLM.from_pretrained(folder)
    again = peft.PeftModel.from_pretrained(again, tmp_path / "ours").eval()
    np.testing.assert_allclose(logits_of(again, ids), expected, rtol=1e-5, atol=1e-5)
