"""Variants of LoRA as PEFT saves them: logits, gradient norms, and what we write."""

import jax
import numpy as np
import peft
import pytest
import torch
from flax import nnx
from transformers import AutoModelForCausalLM

from goracs_jax.errors import InputError
from goracs_jax.llm.gradients import gradient_norms
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import (
    load_adapter,
    load_decoder,
    read_lora_config,
    save_adapter,
)

pytestmark = pytest.mark.filterwarnings("ignore")

run = nnx.jit(lambda model, ids: model(ids))
QV = ["q_proj", "v_proj"]
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


def adapted(base, folder, seed=1, **changes):
    """A PEFT model whose trained parameters were moved, and the folder it writes."""
    settings = {"r": 4, "lora_alpha": 6, "target_modules": QV} | changes
    config = peft.LoraConfig(task_type="CAUSAL_LM", **settings)
    model = peft.get_peft_model(base, config).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder, save_embedding_layers=False)
    return model


def load(base_folder, adapter):
    lora = read_lora_config(adapter)
    model = load_decoder(base_folder, lora=lora, key=jax.random.key(0))
    return load_adapter(model, adapter)


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.numpy()


def torch_norms(model, examples):
    """Norms over all that PEFT trains, one example at a time."""
    chosen = [w for w in model.parameters() if w.requires_grad]
    norms = []
    for row in examples:
        ids = torch.tensor(row)[None]
        loss = model(ids, labels=ids).loss
        gradients = torch.autograd.grad(loss, chosen, allow_unused=True)
        squares = [(g**2).sum() for g in gradients if g is not None]
        norms.append(torch.sqrt(sum(squares)).item())
    return norms


def check(theirs, base_folder, tmp_path, norms=True):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 96, (2, 30))
    ours = load(base_folder, tmp_path / "adapter")
    expected = logits_of(theirs, ids)
    # float32 through three layers, logits of size ten.
    np.testing.assert_allclose(run(ours, ids), expected, rtol=1e-4, atol=1e-4)
    if norms:
        rows = [rng.integers(0, 96, n).tolist() for n in (5, 17, 30)]
        found = gradient_norms(ours, ragged(rows, rows), which="all_lora")
        np.testing.assert_allclose(found, torch_norms(theirs, rows), rtol=1e-4)
    return ours, ids, expected


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_variant(save_decoder, tmp_path, kind, tied):
    base, folder = save_decoder(tie_word_embeddings=tied)
    theirs = adapted(base, tmp_path / "adapter", **KINDS[kind])
    if tied and kind == "tables":  # PEFT gives the tensors of this case other names
        with pytest.raises(InputError, match="train one of them"):
            load(folder, tmp_path / "adapter")
        return
    ours, ids, expected = check(theirs, folder, tmp_path)

    # What is written here is the same adapter to PEFT.
    save_adapter(ours, tmp_path / "ours", str(folder))
    again = AutoModelForCausalLM.from_pretrained(folder)
    again = peft.PeftModel.from_pretrained(again, tmp_path / "ours").eval()
    np.testing.assert_allclose(logits_of(again, ids), expected, rtol=1e-5, atol=1e-5)
