"""Beam search with the rules of `transformers.generate`, as one compiled program.

The beams of a prompt share its cache of keys and values and one row of the batch. Every
generated token keeps its own slot in the cache, and a beam attends to the slots of its
ancestors. When beams are reordered, only the attention masks move, never the cache.

The rules are those of transformers 5 with num_beams=2 and its other defaults:

1. The 2 * beams best continuations of all running beams are the candidates.
2. The best `beams` candidates that do not end keep running.
3. Candidates that end and rank among the first `beams` are finished, with the score
   log p / length (length_penalty 1).
4. The search stops when no running beam, divided by its present length, scores above
   the worst finished beam (early_stopping False), or at the last token, where every
   running beam is finished.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float32, Int, Int32

from goracs_jax.llm.embeddings import at_last_token
from goracs_jax.llm.passes import Pass
from goracs_jax.llm.tokens import PADDING
from goracs_jax.models.attention import KeysValues
from goracs_jax.models.decoder import Decoder, Layout
from goracs_jax.shapes import AnyArray

# transformers adds this number to the score of a beam that must not be chosen.
DEAD = -1e9


class Ending(NamedTuple):
    """When a text ends: as soon as the weights of its tokens add up to `limit`."""

    weights: Int32[AnyArray, " vocab"]
    limit: Int32[AnyArray, ""]


class Found(NamedTuple):
    """The beams of each prompt, best first."""

    ids: Int32[Array, "batch beams new"]  # PADDING behind the end
    scores: Float32[Array, "batch beams"]  # log p / length


class BeamState(NamedTuple):
    """The running and finished beams of every prompt.

    Inside `vmap` the arrays are those of one prompt and lack the axis `batch`.
    """

    ids: Int32[Array, "batch beams new"]
    scores: Float32[Array, "batch beams"]  # log p
    weights: Int32[Array, "batch beams"]  # sum of `Ending.weights` so far
    ancestors: Bool[Array, "batch beams slots"]  # cached tokens in a beam's own text
    finished: Found
    is_finished: Bool[Array, "batch beams"]
    can_improve: Bool[Array, " batch"]  # whether a running beam may still win
    is_stuck: Bool[Array, " batch"]  # whether every continuation has ended


def beam_search(
    model: Decoder,
    ids: Int[Array, "batch time"],
    ending: Ending,
    *,
    beams: int = 2,
    new: int = 128,
) -> Found:
    """Continue prompts with the texts of highest mean log-probability per token.

    Args:
        model: The decoder.
        ids: Prompts, padded on the right with negative ids.
        ending: When a text ends.
        beams: Number of texts that are followed at the same time.
        new: Largest number of tokens to generate.

    Returns:
        The finished beams of each prompt, best first.

    >>> from goracs_jax.models import DecoderConfig
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> ends = Ending(jnp.zeros(96, jnp.int32).at[0].set(1), jnp.int32(1))
    >>> beam_search(model, jnp.array([[1, 2, -1]]), ends, new=3).ids.shape
    (1, 2, 3)
    """
    return _beam_search(*nnx.split(model), ids, ending, beams, new)


def generation_pass(model: Decoder, ending: Ending, *, beams: int, new: int) -> Pass:
    """Make the pass that generates the best beam of each prompt; see `beam_search`.

    Args:
        model: The decoder.
        ending: When a text ends.
        beams: Number of texts that are followed at the same time.
        new: Largest number of tokens to generate.

    Returns:
        From a batch of prompts to token ids [batch, new], followed by PADDING.
    """
    return Pass(_best, (*nnx.split(model), ending, beams, new), model.execution)


@partial(jax.jit, static_argnums=(3, 4))
def _best(graph, state, ending, beams, new, ids, labels) -> Int32[Array, "batch new"]:
    del labels
    return _beam_search(graph, state, ids, ending, beams, new).ids[:, 0]


@partial(jax.jit, static_argnames=("beams", "new"))
def _beam_search(graph, state, ids, ending, beams, new) -> Found:
    model = nnx.merge(graph, state)
    batch, time = ids.shape
    real = jnp.any(ids >= 0, axis=1)  # rows of padding must not delay the end
    lengths = jnp.maximum(jnp.sum(ids >= 0, axis=1), 1)
    # The cache has slots for the prompt, then `beams` slots for every generated token.
    slot = jnp.arange(new * beams)
    positions = jnp.concatenate(
        [
            jnp.broadcast_to(jnp.arange(time), (batch, time)),
            lengths[:, None] + slot // beams,
        ],
        axis=1,
    )
    in_prompt = jnp.broadcast_to(
        (jnp.arange(time) < lengths[:, None])[:, None, :], (batch, beams, time)
    )
    each = model.execution.vmap(_follow, in_axes=(None, 0, 0, None))
    follow = partial(each, ending)

    everything = jnp.ones((batch, time, time), bool)
    prompt = Layout(positions[:, :time], everything)
    hidden, cached = model.extend(ids, prompt, model.empty_cache(batch, 0))
    first = _log_probs(model, at_last_token(hidden, ids))[:, None, :]
    start = model.execution.split(_start(real, beams, new))
    search = follow(start, jnp.repeat(first, beams, axis=1), jnp.int32(0))
    room = model.empty_cache(batch, new * beams)
    cache = jax.tree.map(lambda *x: jnp.concatenate(x, axis=2), cached, room)
    cache = model.execution.split(cache, axis=1)

    def goes_on(carry: tuple[Array, BeamState, KeysValues]) -> Array:
        _, search, _ = carry
        return jnp.any(search.can_improve) & ~jnp.all(search.is_stuck)

    def step(carry: tuple[Array, BeamState, KeysValues]) -> tuple:
        # `done` tokens are generated; the model has not yet read the last of them.
        done, search, cache = carry
        tokens = search.ids[:, :, done - 1]
        own = slot == (done - 1) * beams + jnp.arange(beams)[:, None]
        related = jnp.concatenate(
            [
                in_prompt,
                search.ancestors,
                jnp.broadcast_to(jnp.eye(beams, dtype=bool), (batch, beams, beams)),
            ],
            axis=2,
        )
        here = jnp.broadcast_to(lengths[:, None] + done - 1, (batch, beams))
        layout = Layout(jnp.concatenate([positions, here], axis=1), related)
        hidden, added = model.extend(tokens, layout, cache)
        cache = jax.tree.map(
            lambda old, x: jax.lax.dynamic_update_slice_in_dim(
                old, x, time + (done - 1) * beams, axis=2
            ),
            cache,
            added,
        )
        search = search._replace(ancestors=search.ancestors | own)
        search = follow(search, _log_probs(model, hidden), done)
        return done + 1, model.execution.split(search), cache

    _, search, _ = jax.lax.while_loop(goes_on, step, (jnp.int32(1), search, cache))
    return search.finished


def _log_probs(model: Decoder, hidden: Array) -> Array:
    return jax.nn.log_softmax(model.execution.split(model.logits(hidden)), axis=-1)


def _start(real: Bool[Array, " batch"], beams: int, new: int) -> BeamState:
    """Start with equal beams, of which only the first one may be continued."""
    batch = len(real)
    ids = jnp.full((batch, beams, new), PADDING, jnp.int32)
    dead = jnp.full((batch, beams), DEAD)
    return BeamState(
        ids=ids,
        scores=dead.at[:, 0].set(0.0),
        weights=jnp.zeros((batch, beams), jnp.int32),
        ancestors=jnp.zeros((batch, beams, new * beams), bool),
        finished=Found(ids, dead),
        is_finished=jnp.zeros((batch, beams), bool),
        can_improve=real,
        is_stuck=jnp.zeros(batch, bool),
    )


def _follow(
    ending: Ending,
    search: BeamState,
    log_probs: Float32[Array, "beams vocab"],
    step: Int[Array, ""] | int,
) -> BeamState:
    """Choose token number `step`, counted from 0, for the beams of one prompt."""
    beams, vocab = log_probs.shape
    totals = (search.scores[:, None] + log_probs).reshape(-1)
    scores, chosen = jax.lax.top_k(totals, 2 * beams)
    parent, token = chosen // vocab, chosen % vocab
    ids = search.ids[parent].at[:, step].set(token)
    weights = search.weights[parent] + ending.weights[token]
    ends = (weights >= ending.limit) | (step + 1 == ids.shape[1])

    running, kept = jax.lax.top_k(scores + ends * DEAD, beams)

    finishes = ends & (jnp.arange(2 * beams) < beams)
    counts = finishes & search.can_improve
    final = scores / (step + 1) + ~counts * DEAD
    merged = jax.tree.map(
        lambda old, x: jnp.concatenate([old, x]),
        (search.finished, search.is_finished),
        (Found(ids, final), finishes),
    )
    _, best = jax.lax.top_k(merged[0].scores, beams)
    finished, is_finished = jax.tree.map(lambda x: x[best], merged)

    worst = jnp.where(is_finished, jnp.min(finished.scores), DEAD)
    return BeamState(
        ids=ids[kept],
        scores=running,
        weights=weights[kept],
        ancestors=search.ancestors[parent[kept]],
        finished=finished,
        is_finished=is_finished,
        can_improve=search.can_improve & jnp.any(running[0] / (step + 1) > worst),
        is_stuck=jnp.all(ends),
    )
