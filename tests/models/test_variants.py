"""Variants of LoRA against their formulas, from the tensors of a file to logits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from safetensors.numpy import load_file, save_file

from goracs_jax.errors import InputError
from goracs_jax.llm.gradients import gradient_norms
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import (
    Decoder,
    DecoderConfig,
    LoraConfig,
    load_adapter,
    merge_adapters,
    read_lora_config,
    save_adapter,
)
from goracs_jax.models.targets import Rules
from goracs_jax.training import FinetuneConfig, finetune

TINY = DecoderConfig.tiny(tie_embeddings=False)
BIASED = DecoderConfig.tiny(tie_embeddings=False, biases=("q_proj", "v_proj"))
IDS = jnp.arange(10).reshape(2, 5)
run = nnx.jit(lambda model, ids: model(ids))

# The linear layers of each kind: number, name, rank and scale.
EVERY = [(layer, name, 3, 6 / 3) for layer in (0, 1) for name in ("q_proj", "v_proj")]
RANKS = [(0, "q_proj", 5, 6 / 5), (1, "q_proj", 3, 2.0), (1, "v_proj", 2, 1 / 2)]
PATTERNS = {
    "target_modules": r".*(q_proj|1\.self_attn\.v_proj)",
    "rank_pattern": {"0.self_attn.q_proj": 5, "v_proj": 2},
    "alpha_pattern": {r"layers\.1.*v_proj": 1},
}
KINDS = {
    "plain": ({}, EVERY),
    "rslora": ({"use_rslora": True}, [(*s[:3], 6 / np.sqrt(3)) for s in EVERY]),
    "ranks": (PATTERNS, RANKS),
    "bias": ({"lora_bias": True}, EVERY),
    "bias and ranks": ({"lora_bias": True} | PATTERNS, RANKS),
    "dora": ({"use_dora": True}, EVERY),
    "dora and ranks": ({"use_dora": True} | PATTERNS, RANKS),
    "layers": ({"layers_to_transform": [1]}, EVERY[2:]),
    "exclude": ({"exclude_modules": ["0.self_attn.v_proj"]}, [*EVERY[:1], *EVERY[2:]]),
    "tables": ({"modules_to_save": ["lm_head", "embed_tokens"]}, EVERY),
    "tokens": ({"trainable_token_indices": [2, 4]}, EVERY),
    "tokens of both": (
        {"trainable_token_indices": {"embed_tokens": [2, 4], "lm_head": [4, 9]}},
        EVERY,
    ),
}


def stem(layer, name):
    return f"base_model.model.model.layers.{layer}.self_attn.{name}"


def random_tensors(changes, sites):
    """A file's tensors of every part that the configuration has."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: (0.3 * rng.normal(size=shape)).astype(np.float32)
    found = {}
    for layer, name, r, _ in sites:
        d_out = {"q_proj": 32, "v_proj": 16}[name]
        found[f"{stem(layer, name)}.lora_A.weight"] = draw(r, 32)
        found[f"{stem(layer, name)}.lora_B.weight"] = draw(d_out, r)
        if changes.get("lora_bias"):
            found[f"{stem(layer, name)}.lora_B.bias"] = draw(d_out)
        if changes.get("use_dora"):
            found[f"{stem(layer, name)}.lora_magnitude_vector"] = 1 + draw(d_out) ** 2
    for module, part in [("model.embed_tokens", "embed_tokens"), ("lm_head",) * 2]:
        if part in changes.get("modules_to_save", []):
            found[f"base_model.model.{module}.weight"] = draw(96, 32)
        tokens = changes.get("trainable_token_indices", {})
        tokens = {"embed_tokens": tokens} if isinstance(tokens, list) else tokens
        if part in tokens:
            rows = f"base_model.model.{module}.token_adapter.trainable_tokens_delta"
            found[rows] = draw(len(tokens[part]), 32)
    return found


def by_hand(base, tensors, changes, sites):
    """The base with the formulas of LoRA and DoRA applied to its weights."""
    model = nnx.merge(*nnx.split(base))
    for layer, name, _, scale in sites:
        part = lambda x, layer=layer, name=name: tensors[f"{stem(layer, name)}.{x}"]
        linear = getattr(model.layers.attention, name)
        w = linear.kernel[...][layer].T + scale * part("lora_B.weight") @ part(
            "lora_A.weight"
        )
        if changes.get("use_dora"):
            norm = jnp.sqrt((jax.lax.stop_gradient(w) ** 2).sum(axis=1))
            w = (part("lora_magnitude_vector") / norm)[:, None] * w
        linear.kernel = nnx.Param(linear.kernel[...].at[layer].set(w.T))
        if changes.get("lora_bias"):
            b = linear.bias[...].at[layer].add(scale * part("lora_B.bias"))
            linear.bias = nnx.Param(b)
    tokens = changes.get("trainable_token_indices", {})
    tokens = {"embed_tokens": tokens} if isinstance(tokens, list) else tokens
    for ours, module in [("embed", "model.embed_tokens"), ("head", "lm_head")]:
        path, last = f"base_model.model.{module}", module.split(".")[-1]
        if last in changes.get("modules_to_save", []):
            setattr(model, ours, nnx.Param(tensors[f"{path}.weight"]))
        if last in tokens:
            rows = tensors[f"{path}.token_adapter.trainable_tokens_delta"]
            table = getattr(model, ours)[...].at[jnp.array(tokens[last])].set(rows)
            setattr(model, ours, nnx.Param(table))
    return model


@pytest.fixture(params=KINDS)
def case(request, tmp_path):
    """The base, the loaded model, the file's tensors, and how they are combined."""
    changes, sites = KINDS[request.param]
    tensors = random_tensors(changes, sites)
    (tmp_path / "adapter_config.json").write_text(json.dumps(tiny.ADAPTER | changes))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = BIASED if changes.get("lora_bias") else TINY
    lora = read_lora_config(tmp_path)
    model = load_adapter(Decoder(config, lora, key=jax.random.key(0)), tmp_path)
    plain = LoraConfig(targets=lora.resolved(config).targets)
    base = Decoder(config, plain, key=jax.random.key(0))  # B is zero
    return base, model, tensors, (changes, sites)


def test_logits_and_norms(case):
    base, model, tensors, kind = case
    hand = by_hand(base, tensors, *kind)
    before, expected = run(base, IDS), run(hand, IDS)
    assert float(jnp.max(jnp.abs(before - expected))) > 1e-3
    # Two orders of summation in float32 of numbers up to about ten.
    np.testing.assert_allclose(run(model, IDS), expected, rtol=1e-4, atol=1e-4)

    def loss(tensors, row):
        log_p = jax.nn.log_softmax(by_hand(base, tensors, *kind)(row[None])[0])
        return -jnp.mean(jnp.take_along_axis(log_p[:-1], row[1:, None], axis=1))

    rows = [[3, 4, 2, 9, 9], [5, 4, 2]]
    gradients = [jax.grad(loss)(tensors, jnp.array(row)) for row in rows]
    norms = [np.sqrt(sum((g**2).sum() for g in each.values())) for each in gradients]
    found = gradient_norms(model, ragged(rows, rows), which="all_lora")
    np.testing.assert_allclose(found, norms, rtol=1e-4)


def test_what_is_written_is_what_was_read(case, tmp_path):
    _, model, tensors, _ = case
    save_adapter(model, tmp_path / "again")
    lora = read_lora_config(tmp_path / "again").resolved(model.config)
    assert lora == model.lora
    stored = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert stored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(stored[name], tensor)


def test_merged_computes_the_same(case):
    _, model, _, _ = case
    merged = merge_adapters(model)
    # Two orders of summation in float32 of numbers up to about ten.
    np.testing.assert_allclose(run(merged, IDS), run(model, IDS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["ranks", "dora and ranks", "tables", "tokens"])
def test_training_moves_only_what_is_there(kind, tmp_path):
    """A fresh adapter changes nothing; padding stays zero while the rest trains."""
    changes, _ = KINDS[kind]
    (tmp_path / "adapter_config.json").write_text(json.dumps(tiny.ADAPTER | changes))
    lora = read_lora_config(tmp_path)
    model = Decoder(TINY, lora, key=jax.random.key(0))
    plain = LoraConfig(targets=model.lora.targets)
    base = Decoder(TINY, plain, key=jax.random.key(0))
    # DoRA multiplies by m / ||W||, which is one up to rounding.
    np.testing.assert_allclose(run(model, IDS), run(base, IDS), rtol=1e-5, atol=1e-5)
    tokens = ragged([[1, 2, 3, 4, 9]] * 3, [[1, 2, 3, 4, 9]] * 3)
    config = FinetuneConfig(epochs=3, learning_rate=1e-2, warmup_steps=1)
    done = finetune(model, tokens, tokens, config, seed=0)
    losses = [entry["valid_loss"] for entry in done.log if "valid_loss" in entry]
    assert losses[2] < losses[0]
    for name in model.lora.targets:
        layer = getattr(done.model.layers.attention, name)
        for number, rank in enumerate(model.lora.ranks(name, TINY.num_layers)):
            assert not np.any(layer.lora_a[...][number, :, rank:])
            assert not np.any(layer.lora_b[...][number, rank:])
            assert rank == 0 or np.any(layer.lora_b[...][number, :rank])
    for leaf in jax.tree.leaves(nnx.state(done.model, nnx.LoRAParam)):
        assert np.all(np.isfinite(leaf))
    save_adapter(done.model, tmp_path / "trained")
    again = load_adapter(model, tmp_path / "trained")
    np.testing.assert_array_equal(run(again, IDS), run(done.model, IDS))


def decoder(config=TINY, **changes):
    return Decoder(config, LoraConfig(**changes), key=jax.random.key(0))


def test_refuses_what_the_model_does_not_have():
    elsewhere = Rules(targets=("layers.7.self_attn.q_proj",))
    with pytest.raises(InputError, match="match no linear layer of 2 layers"):
        decoder(rules=elsewhere)
    with pytest.raises(InputError, match="trains token 96, but the vocabulary has 96"):
        decoder(tokens=(("embed", (96,)),))
    tied = DecoderConfig.tiny()
    with pytest.raises(InputError, match="which are one table in this model"):
        decoder(tied, tokens=(("embed", (1,)),), tables=("head",))
    model = decoder(tied, tables=("head",))
    with pytest.raises(InputError, match="cannot be merged"):
        merge_adapters(model)
    model = decoder(bias=True)
    with pytest.raises(InputError, match="adds a bias to q_proj"):
        merge_adapters(model)


def test_last_v_needs_an_adapter_in_the_last_layer():
    model = decoder(rules=Rules(targets=("v_proj",), layers=(0,)))
    tokens = ragged([[1, 2]], [[1, 2]])
    with pytest.raises(InputError, match="v_proj in the last layer"):
        gradient_norms(model, tokens)


def test_a_stage_is_named_by_what_is_not_idle():
    """Plain adapters have the names that they had before there were variants."""
    plain = {"r": 8, "alpha": 16.0, "targets": ("q_proj", "v_proj"), "dropout": 0.05}
    assert LoraConfig().identity() == plain
    assert LoraConfig(dora=True).identity() == plain | {"dora": True}
