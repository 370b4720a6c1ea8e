"""What adapters in the top layers alone save of a step; takes three minutes.

    python benchmarks/layers.py

SmolLM2-135M learns to answer whether a user likes a movie (MovieLens-100K, five titles
in a history), with LoRA of rank 8 on q_proj and v_proj, in float32. There are three
kinds of steps: with adapters in all 30 layers; with adapters in the last 6, where the
layers below run forward; and the same from states that were kept. Rounds of the three
alternate; all texts have one padded length. Processor seconds are those of all threads,
so that other work on the machine matters little; those of the pass that keeps states
include compiling it. Writes results/layers.json.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import write
from lora_steps import Ours
from scipy.stats import mode

from goracs_jax.data.demo import fetch, movielens
from goracs_jax.data.examples import Example
from goracs_jax.data.records import Wording, records
from goracs_jax.llm.batches import bucket_length
from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.tokenization import tokenize
from goracs_jax.llm.tokens import Tokens, take
from goracs_jax.models import Decoder, LoraConfig, decoder_config
from goracs_jax.models.targets import Rules, last_layers
from goracs_jax.runs.lower import keep_states
from goracs_jax.runs.opened import Llm, open_llm
from goracs_jax.training import FinetuneConfig

LAST, BATCH, EXAMPLES, ROUNDS = "last:6", 16, 32, 6
CONFIG = FinetuneConfig(
    steps=100, learning_rate=1e-3, batch_size=BATCH, warmup_steps=10
)


class Way(NamedTuple):
    """A way to train: the model, and what its lower layers make of the texts."""

    model: Decoder
    lower: LowerTable | None = None


def opened(layers: str | None) -> Llm:
    """Open SmolLM2 with a fresh adapter in all layers, or in some."""
    path, lora = fetch().model, LoraConfig()
    if layers:
        numbers = last_layers(layers, decoder_config(path).num_layers)
        lora = LoraConfig(rules=Rules(targets=lora.targets, layers=numbers))
    return open_llm(path, None, 0, lora=lora)


def clicks(size: int) -> list[Example]:
    """Draw examples of the training split, with a fixed seed."""
    log, split = movielens(fetch())
    drawn = np.random.default_rng(0).choice(split.train, size, replace=False)
    made = records(log, np.sort(drawn), Wording(task="ctr", history=5))
    return [Example(record, f"example {i}") for i, record in enumerate(made)]


def tokens_of(examples: list[Example], llm: Llm) -> Tokens:
    """Tokenise examples, of which the answer is scored."""
    decoder, tokenizer = llm.load()
    texts = [format_prompt(example.record) for example in examples]
    context = decoder.config.max_positions
    return tokenize(texts, tokenizer, labels="answer", context=context)


def alike(tokens: Tokens) -> Tokens:
    """Take texts of the commonest padded length, for which one program is compiled."""
    padded = np.array([bucket_length(int(length)) for length in tokens.lengths])
    return take(tokens, np.flatnonzero(padded == mode(padded).mode)[:EXAMPLES])


def steps(folder: Path) -> Mapping[str, Any]:
    """Measure the three kinds of steps in turn."""
    plain, top = opened(None), opened(LAST)
    tokens = alike(tokens_of(clicks(8 * EXAMPLES), plain))
    started = time.process_time()
    lower = keep_states(folder, top, [tokens], reads=2 * EXAMPLES)
    assert lower is not None
    once = time.process_time() - started
    ways = {
        "all layers": Way(plain.decoder()),
        LAST: Way(top.decoder()),
        f"{LAST}, kept states": Way(top.decoder(), lower),
    }
    sides = {n: Ours(w.model, tokens, CONFIG, w.lower) for n, w in ways.items()}
    compiling = {name: side.compile_seconds for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(1 + ROUNDS):
        for name, side in sides.items():
            started = time.process_time()
            side.step(number)
            seconds[name].append(time.process_time() - started)
            losses[name].append(side.loss)
            print(name, number, seconds[name][-1], side.loss, flush=True)
    measured = {name: found[1:] for name, found in seconds.items()}
    median = {name: float(np.median(found)) for name, found in measured.items()}
    first, second, third = sides
    apart = np.subtract(losses[second], losses[third])
    return {
        "processor_seconds": measured,
        "median": median,
        "times_faster": {name: median[first] / median[name] for name in sides},
        "compile_seconds": compiling,
        "once_processor_seconds_per_text": once / EXAMPLES,
        "bytes_per_text": lower.table.nbytes / EXAMPLES,
        "losses": losses,
        "largest_difference_of_losses": float(np.max(np.abs(apart))),
        "examples": EXAMPLES,
        "batch": BATCH,
        "mean_tokens": float(tokens.lengths.mean()),
    }


def main() -> None:
    """Write what was measured."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(write("layers", dict(steps(Path(scratch)))))


if __name__ == "__main__":
    main()
