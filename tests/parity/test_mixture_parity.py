"""Mixtures of experts against transformers and PEFT: gradients, adapters, merging."""

import jax
import numpy as np
import peft
import pytest
import torch
from flax import nnx
from transformers import AutoModelForCausalLM

from goracs_jax.llm.gradients import gradient_norms
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import (
    load_adapter,
    load_decoder,
    read_lora_config,
    save_adapter,
    save_merged,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

KEY = jax.random.key(0)
IDS = np.random.default_rng(0).integers(0, 96, (5, 30))
# Texts of different lengths in one batch: each is routed with the others and padding.
TEXTS = [row[: 30 - 4 * i].tolist() for i, row in enumerate(IDS)]
# float32 through three layers, logits of size ten.
F32 = {"rtol": 1e-4, "atol": 1e-4}
run = nnx.jit(lambda model, ids: model(ids))


def logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


@pytest.fixture(params=["qwen3-moe", "qwen3-moe-plain", "mixtral"])
def both(request, save_decoder, tmp_path):
    """A PEFT model whose B is not zero, ours, and the folder of their base."""
    base, folder = save_decoder(request.param)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"
    )
    theirs = peft.get_peft_model(base, config).eval()
    torch.manual_seed(1)
    for name, weight in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    theirs.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    lora = read_lora_config(tmp_path / "adapter")
    ours = load_adapter(load_decoder(folder, lora=lora, key=KEY), tmp_path / "adapter")
    return theirs, ours, folder


@pytest.mark.parametrize("which", ["last_v_lora_b", "all_lora"])
def test_gradient_norms(both, which):
    """Those of layers below pass through experts and through their routers."""
    theirs, ours, _ = both
    theta = [
        weight
        for name, weight in theirs.named_parameters()
        if ("lora_" in name and which == "all_lora")
        or "layers.2.self_attn.v_proj.lora_B" in name
    ]
    expected = []
    for text in TEXTS:
        row = torch.tensor(text)[None]
        loss = theirs(row, labels=row).loss
        found = torch.autograd.grad(loss, theta)
        expected.append(float(sum((g**2).sum() for g in found)) ** 0.5)
    found = gradient_norms(
        ours, ragged(TEXTS, TEXTS), which=which, tokens_per_batch=150
    )
    # Sums in another order, through three layers.
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_adapters_and_merged_models(both, tmp_path):
    theirs, ours, folder = both
    expected = logits(theirs)
    np.testing.assert_allclose(run(ours, IDS), expected, **F32)
    save_adapter(ours, tmp_path / "copy")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    copy = peft.PeftModel.from_pretrained(base, tmp_path / "copy").eval()
    np.testing.assert_allclose(logits(copy), expected, **F32)
    save_merged(ours, folder, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", dtype=torch.float32
    )
    np.testing.assert_allclose(logits(merged), expected, **F32)
