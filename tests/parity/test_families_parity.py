"""Families whose files differ from Llama's: matrices in one, text within pictures."""

import jax
import numpy as np
import peft
import pytest
import torch
from families import PLAIN
from flax import nnx
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
)

from goracs_jax.llm.gradients import gradient_norms
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import (
    LoraConfig,
    load_adapter,
    load_decoder,
    read_lora_config,
    save_adapter,
    save_merged,
)
from goracs_jax.models.hf_multimodal import GEMMA3_TEXT
from goracs_jax.models.targets import Rules

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

KEY = jax.random.key(0)
IDS = np.random.default_rng(0).integers(0, 96, (2, 30))
# float32 through three layers, logits of size ten.
F32 = {"rtol": 1e-4, "atol": 1e-4}
run = nnx.jit(lambda model, ids: model(ids))


def logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


def with_random_b(model):
    """The same model with adapters that change something."""
    state = nnx.state(model, nnx.LoRAParam)
    flat = [
        (path, leaf.replace(0.2 * jax.random.normal(KEY, leaf.shape)))
        for path, leaf in nnx.to_flat_state(state)
        if path[-1] == "lora_b"
    ]
    nnx.update(model, nnx.from_flat_state(flat))
    return model


def with_peft(base, tmp_path, targets):
    """A PEFT model whose B is not zero, written to `adapter`."""
    config = peft.LoraConfig(
        r=5, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM"
    )
    theirs = peft.get_peft_model(base, config).eval()
    torch.manual_seed(1)
    for name, weight in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    # Otherwise PEFT asks the hub whether the vocabulary was changed.
    theirs.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    return theirs


@pytest.mark.parametrize(
    "targets", [["qkv_proj"], ["qkv_proj", "o_proj", "gate_up_proj"], "all-linear"]
)
def test_an_adapter_of_matrices_in_one(save_decoder, tmp_path, targets):
    base, folder = save_decoder("phi3")
    theirs = with_peft(base, tmp_path, targets)
    lora = read_lora_config(tmp_path / "adapter")
    ours = load_adapter(load_decoder(folder, lora=lora, key=KEY), tmp_path / "adapter")
    np.testing.assert_allclose(run(ours, IDS), logits(theirs), **F32)
    # Our own copy of it, whose rank is three times as large, is the same adapter.
    save_adapter(ours, tmp_path / "copy")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    copy = peft.PeftModel.from_pretrained(base, tmp_path / "copy").eval()
    np.testing.assert_allclose(logits(copy), logits(theirs), **F32)


@pytest.mark.parametrize("family", ["phi3", "phi3-window", "phi4-mini"])
def test_gradient_norms_of_a_part_of_a_matrix(save_decoder, tmp_path, family):
    """lora_B of v_proj is the last rows of that of qkv_proj."""
    base, folder = save_decoder(family)
    theirs = with_peft(base, tmp_path, ["qkv_proj"])
    lora = read_lora_config(tmp_path / "adapter")
    ours = load_adapter(load_decoder(folder, lora=lora, key=KEY), tmp_path / "adapter")
    (b,) = (
        w for n, w in theirs.named_parameters() if "2.self_attn.qkv_proj.lora_B" in n
    )
    b.requires_grad_(True)
    expected = []
    for row in torch.tensor(IDS):
        loss = theirs(row[None], labels=row[None]).loss
        (gradient,) = torch.autograd.grad(loss, [b])
        expected.append(gradient[-16:].norm().item())  # two heads of eight
    tokens = ragged(IDS.tolist(), IDS.tolist())
    found = gradient_norms(ours, tokens, which="last_v_lora_b", tokens_per_batch=240)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "rules",
    [
        Rules(targets=("q_proj", "v_proj", "down_proj"), ranks=(("v_proj", 3),)),
        Rules(targets=("k_proj", "up_proj"), layers=(1, 2), alphas=(("up_proj", 5.0),)),
    ],
)
def test_parts_are_saved_as_peft_loads_them(save_decoder, tmp_path, rules):
    """In PEFT these rules name no layer of this family: they are resolved by hand."""
    base, folder = save_decoder("phi3")
    plain = logits(base)
    names = rules.targets
    sites = Rules.sites(rules, 3, 4, 8.0)
    lora = LoraConfig(r=max(s.r for s in sites), targets=names, sites=sites)
    ours = with_random_b(load_decoder(folder, lora=lora, key=KEY))
    expected = run(ours, IDS)
    assert np.abs(expected - plain).max() > 0.1
    save_adapter(ours, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    np.testing.assert_allclose(expected, logits(theirs), **F32)
    lora = read_lora_config(tmp_path / "adapter")
    again = load_adapter(load_decoder(folder, lora=lora, key=KEY), tmp_path / "adapter")
    np.testing.assert_allclose(run(again, IDS), expected, **F32)
    save_merged(ours, folder, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", dtype=torch.float32
    )
    np.testing.assert_allclose(expected, logits(merged), **F32)


def gemma3(tmp_path):
    """A model that also reads pictures, and its folder as transformers 5 writes it."""
    config = Gemma3Config(
        text_config={
            "vocab_size": 96,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 64,
            "sliding_window": 7,
            "sliding_window_pattern": 2,
            "initializer_range": 0.2,
            "rope_parameters": {"full_attention": PLAIN, "sliding_attention": PLAIN},
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        },
        mm_tokens_per_image=4,
        image_token_index=95,
    )
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(config).float().eval()
    model.save_pretrained(tmp_path / "gemma3")
    return model, tmp_path / "gemma3"


def test_the_text_part_of_a_model_of_pictures(tmp_path):
    theirs, folder = gemma3(tmp_path)
    expected = logits(theirs)
    ours = load_decoder(folder, key=KEY)
    np.testing.assert_allclose(run(ours, IDS), expected, **F32)
    save_merged(ours, folder, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert type(merged).__name__ == "Gemma3ForCausalLM"
    np.testing.assert_allclose(logits(merged), expected, **F32)
    # In older files, names of weights start with that of the part.
    first = lambda name: (
        "language_model." + name.replace("language_model.", "")
        if "language_model." in name
        else name.removeprefix("model.")
    )
    stored = load_file(folder / "model.safetensors")
    save_file({first(n): w for n, w in stored.items()}, folder / "model.safetensors")
    np.testing.assert_allclose(run(load_decoder(folder, key=KEY), IDS), expected, **F32)


def test_what_a_text_part_leaves_out_is_the_default_of_transformers():
    theirs = Gemma3TextConfig().to_dict()
    assert {name: theirs[name] for name in GEMMA3_TEXT} == GEMMA3_TEXT
