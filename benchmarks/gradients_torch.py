"""The gradient pass in PyTorch, as the released algorithm of the paper takes it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import torch
from flax import nnx
from passes import each, in_turns, logits
from prompts import prompts
from transformers import LlamaConfig, LlamaForCausalLM

import goracs_jax as gx
from goracs_jax.data.demo import fetch
from goracs_jax.llm.batches import make_batches
from goracs_jax.llm.gradients import gradient_norms
from goracs_jax.llm.tokens import Tokens
from goracs_jax.models import Decoder

EXAMPLES, BATCH = 64, 8


def torch_model(model: Decoder) -> Any:
    """Copy weights and adapters into a model of transformers and PEFT."""
    c = model.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.hidden_size,
            intermediate_size=c.intermediate_size,
            num_hidden_layers=c.num_layers,
            num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            max_position_embeddings=c.max_positions,
            rms_norm_eps=c.norm_eps,
            tie_word_embeddings=c.tie_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope.theta},
        )
    ).eval()
    lora = peft.LoraConfig(
        r=model.lora.r,
        lora_alpha=int(model.lora.alpha),
        target_modules=["q_proj", "v_proj"],
    )
    theirs = peft.get_peft_model(theirs, lora).eval()
    state = nnx.to_pure_dict(nnx.state(model))
    layers, put = state["layers"], {}
    for i in range(c.num_layers):
        stem = f"base_model.model.model.layers.{i}."
        attention, mlp = layers["attention"], layers["mlp"]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            adapted = name in model.lora.targets
            inner = ".base_layer" if adapted else ""
            ours = attention[name]
            put[f"{stem}self_attn.{name}{inner}.weight"] = ours["kernel"][i].T
            if adapted:
                for a, b in (("lora_A", "lora_a"), ("lora_B", "lora_b")):
                    put[f"{stem}self_attn.{name}.{a}.default.weight"] = ours[b][i].T
        for name in ("gate_proj", "up_proj", "down_proj"):
            put[f"{stem}mlp.{name}.weight"] = mlp[name]["kernel"][i].T
        for ours_name, name in (
            ("attention_norm", "input_layernorm"),
            ("mlp_norm", "post_attention_layernorm"),
        ):
            put[f"{stem}{name}.weight"] = layers[ours_name]["weight"][i]
    put["base_model.model.model.embed_tokens.weight"] = state["embed"]
    put["base_model.model.lm_head.weight"] = model.output_head
    put["base_model.model.model.norm.weight"] = state["norm"]["weight"]
    tensors = {k: torch.from_numpy(np.array(v, np.float32)) for k, v in put.items()}
    theirs.load_state_dict(tensors, strict=True)
    return theirs


def released_norms(theirs: Any, tokens: Tokens) -> np.ndarray:
    """Return the norms for lora_B of the last v_proj, one backward per example."""
    last = f"layers.{theirs.config.num_hidden_layers - 1}.self_attn.v_proj.lora_B"
    for name, weight in theirs.named_parameters():
        weight.requires_grad_(last in name)
    (theta,) = [w for w in theirs.parameters() if w.requires_grad]
    norms = np.empty(tokens.num_examples, np.float32)
    order = np.random.default_rng(1).permutation(tokens.num_examples)
    for rows in order.reshape(-1, BATCH):
        ids, labels = padded(tokens, rows)
        scores = theirs(input_ids=ids, use_cache=False).logits
        for place, row in enumerate(rows):
            loss = torch.nn.functional.cross_entropy(
                scores[place, :-1], labels[place, 1:]
            )
            (gradient,) = torch.autograd.grad(loss, theta, retain_graph=True)
            norms[row] = float(gradient.norm())
    return norms


def padded(tokens: Tokens, rows: np.ndarray) -> tuple[Any, Any]:
    """Return ids and labels of a batch, padded on the right to its longest example."""
    time_ = int(tokens.lengths[rows].max())
    ids = np.zeros((len(rows), time_), np.int64)
    labels = np.full((len(rows), time_), -100, np.int64)
    for place, row in enumerate(rows):
        span = slice(tokens.offsets[row], tokens.offsets[row + 1])
        ids[place, : tokens.lengths[row]] = tokens.ids[span]
        labels[place, : tokens.lengths[row]] = tokens.labels[span]
    return torch.from_numpy(ids), torch.from_numpy(labels)


def against_torch() -> dict[str, Any]:
    """Time the bare forward pass and the norms on the same examples and weights."""
    tokens = prompts(EXAMPLES)
    model = gx.load_decoder(fetch().model, key=jax.random.key(0))
    theirs = torch_model(model)
    parts, batches = nnx.split(model), make_batches(tokens)
    order = np.argsort(-tokens.lengths)
    one = padded(tokens, order[:BATCH])[0]

    def their_forward() -> None:
        with torch.no_grad():
            for rows in order.reshape(-1, BATCH):
                theirs(input_ids=padded(tokens, rows)[0], use_cache=False)

    runs: dict[str, Callable[[], Any]] = {
        "ours, logits": lambda: each(lambda b: logits(*parts, b.ids), batches),
        "transformers, logits": their_forward,
        "ours, norms": lambda: gradient_norms(model, tokens),
        "released way, norms": lambda: released_norms(theirs, tokens),
    }
    each(lambda b: logits(*parts, b.ids), batches)
    norms = gradient_norms(model, tokens)
    with torch.no_grad():
        theirs(input_ids=one, use_cache=False)
    seconds = in_turns(runs, 2)
    best = {name: min(times) for name, times in seconds.items()}
    expected = released_norms(theirs, tokens)
    return {
        "examples": EXAMPLES,
        "torch": torch.__version__,
        "precision": "float32",
        "seconds": seconds,
        "forward_speed": best["transformers, logits"] / best["ours, logits"],
        "norms_speed": best["released way, norms"] / best["ours, norms"],
        "largest_relative_difference": float(np.abs(norms / expected - 1).max()),
        "bfloat16_forward_seconds": bfloat16_seconds(theirs, tokens, one),
    }


def bfloat16_seconds(theirs: Any, tokens: Tokens, ids: Any) -> dict[str, float]:
    """Time one forward pass over 64 tokens in each precision."""
    row = np.asarray(ids[:1, :64], np.int32)
    found = {}
    for name in ("float32", "bfloat16"):
        model = gx.load_decoder(
            fetch().model, key=jax.random.key(0), dtype=jnp.dtype(name)
        )
        parts = nnx.split(model)
        run = lambda parts=parts: logits(*parts, row)
        theirs.to(getattr(torch, name))

        def their_run() -> None:
            with torch.no_grad():
                theirs(input_ids=ids[:1, :64], use_cache=False)

        jax.block_until_ready(run())
        seconds = in_turns({f"ours {name}": run, f"transformers {name}": their_run}, 2)
        found |= {key: min(times) for key, times in seconds.items()}
    return found
