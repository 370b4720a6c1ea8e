"""Speed of the scorers of `goracs evaluate`, compared with bare forward passes.

    python benchmarks/evaluate.py SEQREC CTR [--examples N] [--new N]

SEQREC and CTR are folders that `goracs prepare` wrote for MovieLens-100K; the model is
the demo's SmolLM2-135M. Every scorer runs once to compile and then `ROUNDS` times, and
the median counts. Its floor is a forward pass over the same padded tokens, without the
output head. For beam search the floor adds a pass over one token per beam for every
further token that is generated. The script writes results/evaluate.json.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import timed, write
from flax import nnx

from goracs_jax.data.demo import fetch
from goracs_jax.data.examples import read_examples
from goracs_jax.evaluate.beam import beam_search
from goracs_jax.evaluate.catalogue import read_candidates, read_catalogue
from goracs_jax.evaluate.ctr import ask, yes_margins
from goracs_jax.evaluate.generation import ending, prompt_tokens
from goracs_jax.evaluate.likelihood import answer_likelihoods, pack
from goracs_jax.llm.batches import make_batches
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.tokens import Tokens
from goracs_jax.models import load_decoder, load_tokenizer

ROUNDS = 3


@jax.jit
def forward(graph, state, ids):
    """Run the model without its output head."""
    return jnp.sum(nnx.merge(graph, state).hidden(ids).astype(jnp.float32))


def beside_floor(
    name: str, run: Callable[[], Any], floor: Callable[[], Any], examples: int
) -> dict[str, Any]:
    """Measure a scorer and its floor, in examples per second."""
    _, first, own = timed(run, ROUNDS)
    _, _, bare = timed(floor, ROUNDS)
    figures = {
        "first_seconds": first,
        "seconds": own,
        "examples": examples,
        "examples_per_second": examples / own,
        "floor_examples_per_second": examples / bare,
        "share_of_floor": bare / own,
    }
    print(name, {k: round(v, 3) for k, v in figures.items()}, flush=True)
    return figures


def main() -> None:
    """Measure the three scorers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seqrec", type=Path)
    parser.add_argument("ctr", type=Path)
    parser.add_argument("--examples", type=int, default=8)
    parser.add_argument("--new", type=int, default=32)
    options = parser.parse_args()
    path = fetch().model
    model, tokenizer = load_decoder(path, key=jax.random.key(0)), load_tokenizer(path)
    context, size = model.config.max_positions, options.examples
    split = nnx.split(model)

    def pass_over(tokens: Tokens) -> Callable[[], Any]:
        batches = make_batches(tokens, tokens_per_batch=tokens_in_batch(tokens))
        return lambda: [forward(*split, jnp.asarray(batch.ids)) for batch in batches]

    def tokens_in_batch(tokens: Tokens) -> int:
        return max(4096, int(tokens.lengths.max()))

    clicks = read_examples(options.ctr / "test.jsonl")[: 4 * size]
    questions = ask(clicks, tokenizer, context=context)
    budget = tokens_in_batch(questions.tokens)
    figures = {
        "ctr": beside_floor(
            "ctr",
            lambda: yes_margins(model, questions, tokens_per_batch=budget),
            pass_over(questions.tokens),
            len(clicks),
        )
    }

    catalogue = read_catalogue(options.seqrec / "items.jsonl")
    examples = read_examples(options.seqrec / "test.jsonl")[:size]
    candidates = read_candidates(examples, catalogue)
    prompts = [format_prompt(example.record).prompt for example in examples]
    places = [example.place for example in examples]
    rows = prompt_tokens(
        prompts, tokenizer, context=context, new=options.new, places=places
    )
    time_axis = int(rows.lengths.max())
    ids = jnp.asarray(make_batches(rows, tokens_per_batch=size * time_axis * 2)[0].ids)
    ids = ids[:size]
    ends = ending(tokenizer, model.config.vocab_size, candidates.quotes)
    search = lambda: beam_search(model, ids, ends, beams=2, new=options.new)
    lengths = np.asarray(jnp.sum(search().ids[:, 0] >= 0, axis=1))
    steps = int(lengths.max())

    def passes() -> list[Any]:
        one = jnp.zeros((size, 2), jnp.int32)
        return [forward(*split, ids)] + [forward(*split, one) for _ in range(steps - 1)]

    figures["beam search"] = beside_floor("beam search", search, passes, size) | {
        "generated_tokens": lengths.tolist(),
        "beams": 2,
        "most_new_tokens": options.new,
    }

    few = max(1, size // 4)
    started = time.perf_counter()
    packed = pack(
        [
            [(prompt, answer) for answer in answers]
            for prompt, answers in zip(prompts, candidates.answers, strict=True)
        ][:few],
        tokenizer,
        context=context,
        places=places[:few],
    )
    packing = (time.perf_counter() - started) / few
    score = lambda: answer_likelihoods(
        model, packed, tokens_per_batch=tokens_in_batch(packed)
    )
    ranked = beside_floor("likelihood", score, pass_over(packed), few)
    figures["likelihood"] = ranked | {
        "candidates": candidates.items.shape[1],
        "tokens_an_example": packed.lengths.tolist(),
        "tokenising_seconds_an_example": packing,
    }
    print(write("evaluate", {"model": path.name, "parts": figures}))


if __name__ == "__main__":
    main()
