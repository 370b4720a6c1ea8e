"""Parts of accelerator.py that run a language model forward: norms and evaluation."""

from collections.abc import Iterator
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_given import Given, weight_bytes
from scipy.stats import spearmanr

from goracs_jax.evaluate.beam import Ending, beam_search
from goracs_jax.evaluate.ctr import Questions, yes_margins
from goracs_jax.llm.flops import Counts, forward_flops, gradient_flops
from goracs_jax.llm.gradients import Which, gradient_norms
from goracs_jax.llm.tokens import Tokens
from goracs_jax.models import Decoder

Figures = Iterator[tuple[str, dict[str, Any]]]
GOAL = 0.45  # share of the peak of bfloat16 that last_v_lora_b is to reach


def gradients(given: Given) -> Figures:
    """Time the gradient norms of both models in bfloat16, and compare with float32."""
    sizes = given.sizes
    small, source = given.small()
    tokens = given.tokens(small.config, sizes.batches * sizes.small_batch)
    batch = sizes.small_batch * sizes.time
    for which in get_args(Which):
        found = norms(given, small, tokens, which, batch)
        yield f"SmolLM2-135M, {which}", found | {"weights": source}
    rounded = gradient_norms(small, tokens, tokens_per_batch=batch)
    whole, _ = given.small(jnp.float32)
    reference = gradient_norms(whole, tokens, tokens_per_batch=batch)
    yield (
        "SmolLM2-135M, bfloat16 against float32",
        {
            "spearman": float(np.asarray(spearmanr(rounded, reference))[0]),
            "largest_relative_difference": float(np.abs(rounded / reference - 1).max()),
        },
    )
    del small, whole  # the large model may need their memory
    large = given.large()
    tokens = given.tokens(large.config, sizes.batches * sizes.large_batch)
    batch = sizes.large_batch * sizes.time
    layers = f"{large.config.num_layers} of {sizes.large.num_layers} layers"
    for which in get_args(Which):
        found = norms(given, large, tokens, which, batch)
        yield f"Llama of 7B shape, {which}", found | {"weights": f"random, {layers}"}


def norms(
    given: Given, model: Decoder, tokens: Tokens, which: Which, batch: int
) -> dict[str, Any]:
    """Time the norms of all examples; the weights are read once for every batch."""
    total = int(tokens.lengths.sum())
    found = given.beside_floor(
        partial(gradient_norms, model, tokens, which=which, tokens_per_batch=batch),
        flops=gradient_flops(model.config, Counts.of(tokens), which),
        read=total / batch * weight_bytes(model),
        dtype="bfloat16",
    )
    if which == "last_v_lora_b":
        found["goal_peak_share"] = GOAL
    return with_rate(found, total) | {"tokens_per_batch": batch}


def evaluation(given: Given) -> Figures:
    """Time the pass of click prediction, and a beam search that no token ends."""
    sizes, (model, source) = given.sizes, given.small()
    tokens = given.tokens(model.config, sizes.batches * sizes.small_batch)
    batch = sizes.small_batch * sizes.time
    counts = Counts(tokens.lengths, np.zeros_like(tokens.lengths))
    read = weight_bytes(model)
    found = given.beside_floor(
        lambda: yes_margins(
            model, Questions(tokens, yes=1, no=2), tokens_per_batch=batch
        ),
        flops=forward_flops(model.config, counts),
        read=sizes.batches * read,
        dtype="bfloat16",
    )
    found = with_rate(found, int(tokens.lengths.sum()))
    yield "click prediction", found | {"weights": source}

    beams, new = 2, sizes.new
    prompts = given.tokens(model.config, sizes.prompts)
    ids = jnp.asarray(prompts.ids.reshape(sizes.prompts, sizes.time))
    never = Ending(jnp.zeros(model.config.vocab_size, jnp.int32), jnp.int32(1))
    one = np.ones(sizes.prompts * beams * new, np.int64)
    # Every step reads the weights, and the keys and values of the prompts.
    kept = jax.eval_shape(lambda: model.empty_cache(*ids.shape))
    cache = sum(x.size * x.dtype.itemsize for x in kept)
    found = given.beside_floor(
        lambda: beam_search(model, ids, never, beams=beams, new=new),
        flops=forward_flops(
            model.config, Counts(prompts.lengths, np.ones_like(prompts.lengths))
        )
        + forward_flops(model.config, Counts(one, one)),
        read=new * (read + cache),
        dtype="bfloat16",
    )
    found = with_rate(found, sizes.prompts * new)
    yield "beam search", found | {"beams": beams, "new_tokens": new, "weights": source}


def with_rate(found: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Add the tokens a second to the figures of a run that was timed."""
    if "seconds" not in found:
        return found
    return found | {"tokens_per_second": tokens / found["seconds"]}
