"""Do cheaper gradient passes rank examples alike? Then one could replace the other.

    python benchmarks/proxy.py

The script takes the gradient norms of MovieLens prompts under SmolLM2-135M in several
ways: with other precisions, adapters, gradients, scored tokens and depths. A model that
ends after its first layers represents a smaller model. results/proxy.json holds
Spearman's rank correlation for every pair of ways.
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import write
from flax import nnx
from prompts import prompts
from scipy.stats import spearmanr

import goracs_jax as gx
from goracs_jax.data.demo import fetch
from goracs_jax.llm.gradients import gradient_norms
from goracs_jax.models import Decoder

EXAMPLES = 64
DEPTHS = (20, 10, 5)


def first_layers(model: Decoder, depth: int) -> Decoder:
    """Cut a model after its first layers; the last norm and the head stay."""
    config = dataclasses.replace(
        model.config, num_layers=depth, sliding=model.config.sliding[:depth]
    )
    build = lambda: Decoder(config, model.lora, key=jax.random.key(0))
    graph = nnx.graphdef(nnx.eval_shape(build))
    state = nnx.to_flat_state(nnx.state(model))
    cut = [
        (path, leaf.replace(leaf[...][:depth]) if path[0] == "layers" else leaf)
        for path, leaf in state
    ]
    return nnx.merge(graph, nnx.from_flat_state(cut))


def main() -> None:
    """Take the norms of every variant and correlate each pair of variants."""
    load = lambda seed=0, dtype=jnp.float32: gx.load_decoder(
        fetch().model, key=jax.random.key(seed), dtype=dtype
    )
    tokens, model = prompts(EXAMPLES), load()
    answers = prompts(EXAMPLES, labels="answer")
    norms: dict[str, np.ndarray] = {}

    def take(name: str, *arguments: Any, **which: Any) -> None:
        norms[name] = gradient_norms(*arguments, **which)
        print(name, float(norms[name].mean()), flush=True)

    take("float32, last_v_lora_b", model, tokens)
    take("bfloat16", load(dtype=jnp.bfloat16), tokens)
    take("another adapter", load(seed=1), tokens)
    take("all_lora", model, tokens, which="all_lora")
    take("labels answer", model, answers)
    take("labels answer, bfloat16", load(dtype=jnp.bfloat16), answers)
    for depth in DEPTHS:
        take(f"first {depth} of 30 layers", first_layers(model, depth), tokens)
        take(f"first {depth}, labels answer", first_layers(model, depth), answers)
    correlation = {
        f"{one} | {other}": float(np.asarray(spearmanr(norms[one], norms[other]))[0])
        for one, other in itertools.combinations(norms, 2)
    }
    lengths = float(
        np.asarray(spearmanr(norms["float32, last_v_lora_b"], tokens.lengths))[0]
    )
    record = {"examples": EXAMPLES, "spearman": correlation, "with_length": lengths}
    print(write("proxy", record))


if __name__ == "__main__":
    main()
