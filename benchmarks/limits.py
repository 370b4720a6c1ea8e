"""What bounds the gradient passes: FLOPs and bytes of memory, on three devices.

    python benchmarks/limits.py [--rounds 5]

The model is SmolLM2-135M on texts of 512 tokens. FLOPs are those of
`goracs_jax.llm.flops`. Bytes are counted as if no cache kept anything from one
operation to the next, but products were fused with what comes before and after them:

- the weights, once for each batch, and again where the pass goes backward;
- the scores of attention and their softmax, each written and read once; backward, both
  again and their two gradients;
- what a layer keeps for its backward pass, written and read once;
- the logits of scored tokens, in float32, written and read once; for a gradient, their
  exponentials likewise, and the sums of the loss for each block of the vocabulary.

The peaks of the H100 (SXM, bfloat16 without sparsity) and the v5e are those that their
makers publish. Those of this CPU are measured here, in turns with the passes: a product
of matrices in float32, and a copy that no cache can hold. Seconds are those of the
processors over the number of cores, which other programs on the machine hardly change.
Writes results/limits.json.
"""

import argparse
import json
import os
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import write
from flax import nnx
from passes import by_turns, logits

import goracs_jax as gx
from goracs_jax.data.demo import fetch
from goracs_jax.devices import kind_of
from goracs_jax.llm.batches import TOKENS_PER_BATCH
from goracs_jax.llm.flops import Counts, forward_flops, gradient_flops
from goracs_jax.llm.gradients import Which, gradient_norms
from goracs_jax.llm.tokens import NOT_SCORED, ragged
from goracs_jax.models import DecoderConfig
from goracs_jax.models.execution import VOCAB_BLOCK

TIME, ANSWER = 512, 2  # tokens of a text, and of its answer (Yes or No, and the end)
PRODUCT, COPY = 2048, 2**26  # rows and columns, and numbers


class Device(NamedTuple):
    """A device's peaks, the size of its numbers, and the texts of a batch."""

    flops: float
    bandwidth: float
    size: int
    texts: int


PUBLISHED = {
    name: Device(kind.bfloat16, kind.bandwidth, 2, texts)
    for name, kind, texts in (
        ("H100", kind_of("h100"), 128),
        ("v5e", kind_of("v5e"), 32),
    )
}


class Pass(NamedTuple):
    """The adapters whose gradient a pass takes (None: forward), and scored tokens."""

    which: Which | None
    scored: int


PASSES = {
    "forward": Pass(None, TIME),
    "last_v_lora_b": Pass("last_v_lora_b", TIME),
    "all_lora": Pass("all_lora", TIME),
    "last_v_lora_b, answer scored": Pass("last_v_lora_b", ANSWER),
    "all_lora, answer scored": Pass("all_lora", ANSWER),
}


def flops_of_text(config: DecoderConfig, run: Pass) -> float:
    """Count the FLOPs of a pass over one text."""
    counts = Counts(np.array([TIME]), np.array([run.scored]))
    if run.which is None:
        return forward_flops(config, counts)
    return gradient_flops(config, counts, run.which)


def bytes_of_batch(config: DecoderConfig, run: Pass, texts: int, size: int) -> float:
    """Count the bytes that a pass over a batch reads and writes.

    Args:
        config: Sizes of the decoder.
        run: The pass.
        texts: Texts of a batch.
        size: Bytes of a weight and of an activation.
    """
    c, tokens, scored = config, texts * TIME, texts * run.scored
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    mlp = 3 * c.hidden_size * c.intermediate_size
    layer = mlp + c.hidden_size * (2 * queries + 2 * keys)
    head = c.vocab_size * c.hidden_size
    scores = 2 * 4 * tokens * TIME * c.num_heads  # one array, written and read
    logits = 2 * 4 * scored * c.vocab_size
    # Of the last layer, the tokens that are not scored have keys and values alone.
    share = run.scored / TIME
    layers = c.num_layers - 1 + share
    found = size * (c.num_layers * layer + head) + layers * 2 * scores + logits
    if run.which is None:
        return found
    blocks = -(-c.vocab_size // VOCAB_BLOCK)
    found += logits + 2 * 4 * blocks * scored * c.hidden_size
    of_all = c.hidden_size + 2 * keys
    of_asked = c.hidden_size + queries + 2 * c.intermediate_size
    kept = 2 * size * tokens
    if run.which == "all_lora":
        found += c.num_layers * (size * layer + kept * of_all)
        return found + layers * (kept * of_asked + 4 * scores)
    # The last layer goes back to v alone: through the MLP, the output's product and
    # the softmax.
    back = mlp + c.hidden_size * queries
    return found + size * back + kept * of_all + share * (kept * of_asked + scores)


def limits(config: DecoderConfig, run: Pass, device: Device) -> dict[str, Any]:
    """Return the FLOPs and bytes a token, and the time that each takes at its peak."""
    flops = flops_of_text(config, run) / TIME
    tokens = device.texts * TIME
    moved = bytes_of_batch(config, run, device.texts, device.size) / tokens
    by_flops, by_bytes = 1e6 * flops / device.flops, 1e6 * moved / device.bandwidth
    return {
        "flops": flops,
        "bytes": moved,
        "us_by_flops": by_flops,
        "us_by_bytes": by_bytes,
        "bound": "FLOPs" if by_flops > by_bytes else "bytes",
    }


def measure(rounds: int) -> tuple[DecoderConfig, Device, dict[str, float]]:
    """Measure this CPU's peaks and its passes, and return microseconds a token."""
    model = gx.load_decoder(fetch().model, key=jax.random.key(0))
    texts = TOKENS_PER_BATCH // TIME
    ids = np.random.default_rng(0).integers(model.config.vocab_size, size=(texts, TIME))
    answer = np.where(np.arange(TIME) < TIME - ANSWER, NOT_SCORED, ids)
    ids, answer = ids.tolist(), answer.tolist()
    tokens = {TIME: ragged(ids, ids), ANSWER: ragged(ids, answer)}
    square, line = jnp.ones((PRODUCT, PRODUCT)), jnp.zeros(COPY)
    dot = jax.jit(partial(jnp.matmul, precision="float32"))
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    held = [line]

    def copy() -> jax.Array:
        held[0] = add(held[0])
        return held[0]

    peaks = {"product": lambda: dot(square, square), "copy": copy}
    parts = nnx.split(model)
    passes = {
        name: partial(gradient_norms, model, tokens[scored], which=which)
        if which
        else lambda: logits(*parts, jnp.asarray(ids))
        for name, (which, scored) in PASSES.items()
    }
    by_turns(peaks | passes, 1)  # compiles
    best = dict.fromkeys(peaks | passes, np.inf)
    for _ in range(rounds):
        # The peaks are short: their best of many turns is closer to the truth.
        for name, times in (by_turns(peaks, 20) | by_turns(passes, 1)).items():
            cores = len(os.sched_getaffinity(0))
            best[name] = min(best[name], *(took.cpu / cores for took in times))
    peak, bandwidth = 2 * PRODUCT**3 / best.pop("product"), 8 * COPY / best.pop("copy")
    micro = {name: 1e6 * t / (texts * TIME) for name, t in best.items()}
    return model.config, Device(peak, bandwidth, 4, texts), micro


def main() -> None:
    """Measure this CPU and write the limits of every pass on every device."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    config, here, measured = measure(rounds)
    devices = {"CPU": here, **PUBLISHED}
    figures = {
        "time": TIME,
        "answer": ANSWER,
        "rounds": rounds,
        "load": os.getloadavg(),
        "devices": {name: device._asdict() for name, device in devices.items()},
        "measured_us": measured,
        "passes": {
            name: {d: limits(config, run, device) for d, device in devices.items()}
            for name, run in PASSES.items()
        },
    }
    print(json.dumps(figures, indent=1), write("limits", figures))


if __name__ == "__main__":
    main()
