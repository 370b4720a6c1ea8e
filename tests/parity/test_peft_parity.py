import jax
import numpy as np
import peft
import pytest
import torch
from families import FAMILIES
from flax import nnx
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from goracs_jax.llm.gradients import gradient_norms
from goracs_jax.llm.tokens import NOT_SCORED, ragged
from goracs_jax.models import (
    LoraConfig,
    LoRALinear,
    load_adapter,
    load_decoder,
    read_lora_config,
    save_adapter,
    save_merged,
)

# PEFT and transformers warn each other of names that will change.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

run = nnx.jit(lambda model, ids: model(ids))
EVERYWHERE = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]


def with_adapter(base, tmp_path, targets, r=5):
    """A PEFT model whose B is not zero, and the folder that PEFT writes."""
    config = peft.LoraConfig(
        r=r, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(base, config).eval()
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    folder = tmp_path / "adapter"
    # Otherwise PEFT asks the hub whether the vocabulary was changed.
    model.save_pretrained(folder, save_embedding_layers=False)
    return model, folder


def load(base_path, adapter):
    lora = read_lora_config(adapter)
    model = load_decoder(base_path, lora=lora, key=jax.random.key(0))
    return load_adapter(model, adapter)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], EVERYWHERE])
def test_adapter_logits(save_decoder, tmp_path, targets):
    base, folder = save_decoder()
    theirs, adapter = with_adapter(base, tmp_path, targets)
    ids = np.random.default_rng(0).integers(0, 96, (2, 30))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
        with theirs.disable_adapter():
            plain = theirs(torch.tensor(ids)).logits.numpy()
    assert np.abs(expected - plain).max() > 0.1
    # float32 through three layers, logits of size ten.
    ours = run(load(folder, adapter), ids)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def examples(vocab_size, lengths, answer_only):
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, vocab_size, n) for n in lengths]
    labels = [
        np.where(np.arange(len(row)) < len(row) // 2, NOT_SCORED, row)
        if answer_only
        else row
        for row in ids
    ]
    return [row.tolist() for row in ids], [row.tolist() for row in labels]


def torch_norms(model, ids, labels, which):
    """One example at a time through transformers' own loss and torch's autograd."""
    layers = model.config.num_hidden_layers
    last_v_b = f"layers.{layers - 1}.self_attn.v_proj.lora_B"
    for name, weight in model.named_parameters():
        chosen = last_v_b in name if which == "last_v_lora_b" else "lora_" in name
        weight.requires_grad_(chosen)
    chosen = [w for w in model.parameters() if w.requires_grad]
    assert len(chosen) == (1 if which == "last_v_lora_b" else 4 * layers)
    norms = []
    for row, label in zip(ids, labels, strict=True):
        one = lambda x: torch.tensor(x, dtype=torch.long)[None]
        loss = model(one(row), labels=one(label)).loss
        gradients = torch.autograd.grad(loss, chosen)
        norms.append(torch.sqrt(sum((g**2).sum() for g in gradients)).item())
    return norms


# In Phi, PEFT has one adapter for q, k and v: see test_families_parity.py.
APART = [name for name in FAMILIES if not name.startswith("phi")]


@pytest.mark.parametrize("family", APART)
def test_gradient_norms(save_decoder, tmp_path, family):
    base, folder = save_decoder(family)
    theirs, adapter = with_adapter(base, tmp_path, ["q_proj", "v_proj"])
    model = load(folder, adapter)
    ids, labels = examples(96, (5, 40, 17, 40, 2, 33), answer_only=family != "llama")
    tokens = ragged(ids, labels)
    for which in ("last_v_lora_b", "all_lora"):
        expected = torch_norms(theirs, ids, labels, which)
        ours = gradient_norms(model, tokens, which=which, tokens_per_batch=240)
        np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("which", ["last_v_lora_b", "all_lora"])
def test_smollm2_gradient_norms(smollm2, tmp_path, which):
    base = AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32
    )
    theirs, adapter = with_adapter(base, tmp_path, ["q_proj", "v_proj"], r=8)
    ids, labels = examples(49152, (20, 61, 33), answer_only=False)
    expected = torch_norms(theirs, ids, labels, which)
    ours = gradient_norms(
        load(smollm2, adapter), ragged(ids, labels), which=which, tokens_per_batch=192
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


# One of each kind of layer, as transformers names them.
KINDS = ["gemma3", "granite", "mixtral", "olmo2", "olmo3", "qwen3-moe", "smollm3"]


@pytest.mark.parametrize("family", KINDS)
def test_adapters_of_every_family(save_decoder, tmp_path, family):
    """What PEFT trained, our copy of it, and the merged model all give the same."""
    base, folder = save_decoder(family)
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    theirs, adapter = with_adapter(base, tmp_path, attention)
    row = np.random.default_rng(0).integers(0, 96, (2, 30))

    def logits(model):
        with torch.no_grad():
            return model(torch.tensor(row)).logits.numpy()

    expected, ours = logits(theirs), load(folder, adapter)
    # float32 through three layers, logits of size ten.
    np.testing.assert_allclose(run(ours, row), expected, rtol=1e-4, atol=1e-4)
    save_adapter(ours, tmp_path / "copy")
    fresh = lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    copy = peft.PeftModel.from_pretrained(fresh(folder), tmp_path / "copy").eval()
    np.testing.assert_allclose(logits(copy), expected, rtol=1e-4, atol=1e-4)
    save_merged(ours, folder, tmp_path / "merged")
    merged = logits(fresh(tmp_path / "merged"))
    np.testing.assert_allclose(merged, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], EVERYWHERE])
def test_peft_loads_what_is_written_here(save_decoder, tmp_path, targets):
    _, folder = save_decoder()
    lora = LoraConfig(r=5, alpha=12.5, targets=tuple(targets), dropout=0.1)
    model = load_decoder(folder, lora=lora, key=jax.random.key(0))
    for block in (model.layers.attention, model.layers.mlp):
        for _, layer in nnx.iter_modules(block):
            if isinstance(layer, LoRALinear):
                key = jax.random.key(layer.lora_b.shape[-1])
                layer.lora_b[...] = 0.1 * jax.random.normal(key, layer.lora_b.shape)
    save_adapter(model, tmp_path / "ours", str(folder))
    base = AutoModelForCausalLM.from_pretrained(folder)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours").eval()
    result = peft.set_peft_model_state_dict(
        theirs, load_file(tmp_path / "ours" / "adapter_model.safetensors")
    )
    assert not result.unexpected_keys
    assert not [name for name in result.missing_keys if "lora" in name]
    config = theirs.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (5, 12.5, 0.1)
    ids = np.random.default_rng(0).integers(0, 96, (2, 30))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
        with theirs.disable_adapter():
            plain = theirs(torch.tensor(ids)).logits.numpy()
    assert np.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(run(model, ids), expected, rtol=1e-4, atol=1e-4)
