"""Twenty steps of training, and merged folders, against torch and PEFT."""

import jax
import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup

from goracs_jax.llm.tokens import NOT_SCORED, ragged, take
from goracs_jax.models import (
    LoraConfig,
    load_decoder,
    load_tokenizer,
    save_adapter,
    save_merged,
)
from goracs_jax.models.targets import Rules, last_layers
from goracs_jax.training import FinetuneConfig, finetune
from goracs_jax.training.order import Order

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

SEED, N = 3, 20
CONFIG = FinetuneConfig(
    epochs=4, learning_rate=5e-3, batch_size=4, warmup_steps=3, tokens_per_batch=96
)  # 20 steps


def examples(seed, size):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, 30, n) for n in rng.integers(6, 40, size)]
    labels = [np.where(np.arange(len(i)) < len(i) // 3, NOT_SCORED, i) for i in ids]
    return ragged([i.tolist() for i in ids], [i.tolist() for i in labels])


def torch_batch(tokens, rows):
    """Right-padded, with the mask and labels that transformers expects."""
    some = [take(tokens, [int(row)]) for row in rows]
    time = max(len(one.ids) for one in some)
    pad = lambda x, value: np.pad(x, (0, time - len(x)), constant_values=value)
    return {
        "input_ids": torch.tensor(np.stack([pad(o.ids, 0) for o in some])).long(),
        "attention_mask": torch.tensor(
            np.stack([pad(np.ones(len(o.ids)), 0) for o in some])
        ).long(),
        "labels": torch.tensor(
            np.stack([pad(o.labels, NOT_SCORED) for o in some])
        ).long(),
    }


def torch_training(model, tokens):
    """What Hugging Face's Trainer does in a step, spelled out."""
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=CONFIG.learning_rate, weight_decay=0.0)
    per_epoch = N // CONFIG.batch_size
    schedule = get_linear_schedule_with_warmup(
        optimizer, CONFIG.warmup_steps, CONFIG.epochs * per_epoch
    )
    losses, norms = [], []
    for epoch in range(CONFIG.epochs):
        order = Order.of(tokens, SEED).epoch(epoch)
        for rows in order.reshape(per_epoch, CONFIG.batch_size):
            loss = model(**torch_batch(tokens, rows)).loss
            loss.backward()
            norms.append(
                torch.nn.utils.clip_grad_norm_(trained, CONFIG.max_grad_norm).item()
            )
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses, norms


@pytest.mark.parametrize(
    ("family", "targets", "last"),
    [
        ("llama", ("q_proj", "v_proj"), 3),
        ("gemma2", ("o_proj", "down_proj"), 3),
        ("llama", ("q_proj", "v_proj"), 2),
    ],
)
def test_twenty_steps(save_decoder, tmp_path, family, targets, last):
    """With adapters in the last two of three layers, the first is no part of them."""
    _, folder = save_decoder(family)
    rules = Rules(targets=targets, layers=last_layers(f"last:{last}", 3))
    lora = LoraConfig(r=4, alpha=8.0, rules=rules, dropout=0.0)
    model = load_decoder(folder, lora=lora, key=jax.random.key(0))
    assert model.frozen_layers == 3 - last
    save_adapter(model, tmp_path / "start")
    theirs = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder),
        tmp_path / "start",
        is_trainable=True,
    )
    tokens = examples(0, N)
    losses, norms = torch_training(theirs, tokens)
    done = finetune(model, tokens, tokens, CONFIG, seed=SEED)
    ours = [r for r in done.log if "loss" in r]
    assert len(ours) == len(losses) == 20
    assert losses[-1] < losses[0] - 0.02
    # float32 gradients agree to 1e-5 or so. Adam divides them by their own size, so a
    # small entry's error does not shrink with it; twenty steps add up.
    np.testing.assert_allclose([r["loss"] for r in ours], losses, rtol=1e-4)
    np.testing.assert_allclose([r["grad_norm"] for r in ours], norms, rtol=1e-3)
    save_adapter(done.model, tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    read = lambda name: load_file(tmp_path / name / "adapter_model.safetensors")
    start, ours, theirs = read("start"), read("ours"), read("theirs")
    assert ours.keys() == theirs.keys()
    for name in theirs:
        moved = (theirs[name] - start[name]).abs().max()
        assert moved > 1e-2
        # A thousandth of the way that training went.
        assert (ours[name] - theirs[name]).abs().max() < 1e-3 * moved, name


def trained_like(folder, base, **changes):
    """An adapter whose B is not zero, written here."""
    lora = LoraConfig(**({"r": 4, "alpha": 8.0} | changes))
    model = load_decoder(base, lora=lora, key=jax.random.key(0))
    for name in lora.targets:
        b = getattr(model.layers.attention, name).lora_b
        b[...] = 0.1 * jax.random.normal(jax.random.key(1), b.shape)
    save_adapter(model, folder)
    return model


def torch_logits(model, ids):
    with torch.no_grad():
        return model.eval()(torch.tensor(ids)).logits.numpy()


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_merged_folder(save_decoder, tmp_path, family):
    _, folder = save_decoder(family)
    model = trained_like(tmp_path / "adapter", folder)
    save_merged(model, folder, tmp_path / "merged", shard_bytes=30_000)
    base = AutoModelForCausalLM.from_pretrained(folder)
    ids = np.random.default_rng(0).integers(0, 96, (2, 30))
    plain = torch_logits(base, ids)
    both = torch_logits(peft.PeftModel.from_pretrained(base, tmp_path / "adapter"), ids)
    merged, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys"))
    assert np.abs(both - plain).max() > 0.1
    # float32 through three layers, logits of size ten.
    np.testing.assert_allclose(torch_logits(merged, ids), both, rtol=1e-4, atol=1e-4)


def test_merged_smollm2(smollm2, tmp_path):
    model = trained_like(tmp_path / "adapter", smollm2, r=8)
    save_merged(model, smollm2, tmp_path / "merged")
    merged, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys"))
    base = AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32
    )
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    tokenizer = load_tokenizer(tmp_path / "merged")
    ids = np.array([tokenizer("The capital of France is 12345").input_ids])
    assert ids[0, :4].tolist() == [504, 3575, 282, 4649]
    # Thirty layers of float32, logits of size thirty.
    np.testing.assert_allclose(
        torch_logits(merged, ids), torch_logits(theirs, ids), rtol=1e-3, atol=1e-3
    )
