"""The gradient pass in PyTorch, as the released algorithm of the paper takes it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from passes import each, in_turns, logits
from prompts import prompts
from torch_steps import torch_model

import goracs_jax as gx
from goracs_jax.data.demo import fetch
from goracs_jax.llm.batches import make_batches
from goracs_jax.llm.gradients import gradient_norms
from goracs_jax.llm.tokens import Tokens

EXAMPLES, BATCH = 64, 8


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
    parts = nnx.split(model)
    batches = [batch.padded() for batch in make_batches(tokens)]
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
