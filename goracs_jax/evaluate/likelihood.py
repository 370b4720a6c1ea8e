"""How likely the model finds each candidate's answer: a ranking without generation.

A prompt and all its candidates are one sequence, [prompt, answer 1, answer 2, ...]:
each answer stands directly behind the prompt and does not see the others. So the prompt
runs once, and titles of different lengths need no padding of their own.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float32, Int

from goracs_jax.errors import InputError
from goracs_jax.llm.tokens import (
    Mapper,
    Tokens,
    check_ids,
    make_batches,
    map_batches,
    tokenize,
)
from goracs_jax.models.decoder import Decoder, Layout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Tokens of an example whose logits exist at one time.
LOGIT_TOKENS = 512


def pack(
    prompts: Sequence[str],
    answers: Sequence[Sequence[str]],
    tokenizer: "PreTrainedTokenizerFast",
    *,
    context: int,
    places: Sequence[str],
) -> Tokens:
    """One sequence for each prompt and its answers.

    Every text is tokenised in one piece, as for training. What an example's texts have
    in common before the first token of an answer is the prompt; the rest of each is
    scored, the end of text included.

    Args:
        prompts: One text per example.
        answers: One list per example.
        tokenizer: Of the model.
        context: Most tokens of one prompt with one answer.
        places: What errors call each example.

    Returns:
        The tokens; their labels are 0 in the prompt and i in the i-th answer.

    Raises:
        InputError: As `tokenize`.
    """
    ids, branches = [], []
    for prompt, titles, place in zip(prompts, answers, places, strict=True):
        tokens = tokenize(
            [(prompt, title) for title in titles],
            tokenizer,
            labels="answer",
            context=context,
            places=[place] * len(titles),
        )
        rows = np.split(tokens.ids, tokens.offsets[1:-1])
        labels = np.split(tokens.labels, tokens.offsets[1:-1])
        shared = min(int(np.argmax(label >= 0)) for label in labels)
        while any((row[:shared] != rows[0][:shared]).any() for row in rows):
            shared -= 1
        rests = [row[shared:] for row in rows]
        ids.append(np.concatenate([rows[0][:shared], *rests]))
        lengths = np.array([shared, *map(len, rests)])
        branches.append(np.repeat(np.arange(len(lengths)), lengths))
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    flat = lambda parts: np.concatenate(parts).astype(np.int32)
    return Tokens(flat(ids), flat(branches), offsets)


def answer_likelihoods(
    model: Decoder,
    packed: Tokens,
    *,
    tokens_per_batch: int = 4096,
    mapper: Mapper = map_batches,
) -> Float32[np.ndarray, "examples answers 2"]:
    """The sum log p(answer | prompt) in nats, and over how many tokens.

    Args:
        model: The decoder.
        packed: What `pack` made.
        tokens_per_batch: Padded tokens in one batch.
        mapper: Runs a function over batches; see `goracs_jax.llm.tokens.map_batches`.

    Returns:
        Sum and number for each answer; an example with fewer answers than others has
        zeros behind them.

    Raises:
        InputError: An id is outside the vocabulary, or a sum is not finite.

    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.llm.tokens import ragged
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> packed = ragged([[5, 6, 7, 8, 9]], [[0, 0, 1, 1, 2]])  # 5 6, then 7 8 or 9
    >>> answer_likelihoods(model, packed)[0, :, 1].tolist()
    [2.0, 1.0]
    """
    check_ids(packed, model.config.vocab_size)
    batches = make_batches(packed, tokens_per_batch=tokens_per_batch)
    score = partial(_of_batch, *nnx.split(model), int(packed.labels.max()))
    found = mapper(score, batches)
    bad = np.flatnonzero(~np.isfinite(found).all((1, 2)))
    if len(bad):
        raise InputError(
            f"the likelihoods of example {bad[0] + 1} are not finite ({len(bad)} of "
            f"{len(found)} examples): check the model's weights, or use float32."
        )
    return found


@partial(jax.jit, static_argnums=2)
def _of_batch(graph, state, num_answers, ids, branches):
    score = partial(_of_example, nnx.merge(graph, state), num_answers)
    return jax.vmap(score)(ids, branches)


def _of_example(
    model: Decoder,
    num_answers: int,
    ids: Int[Array, " time"],
    branch: Int[Array, " time"],
) -> Float32[Array, "answers 2"]:
    # Padding is a branch of its own: as an index, a negative number is another branch.
    branch = jnp.where(branch >= 0, branch, num_answers + 1)
    place = jnp.arange(len(ids))
    start = jax.ops.segment_min(place, branch, num_answers + 2)[branch]
    prompt = jnp.sum(branch == 0)
    positions = jnp.where(branch == 0, place, prompt + place - start)
    related = (branch == 0)[None, :] | (branch[:, None] == branch[None, :])
    hidden = model.hidden(ids, Layout(positions, related))
    # The prompt's last state predicts the first token of every answer.
    before = jnp.where(place == start, prompt - 1, place - 1)

    def log_p(token: tuple[Array, Array]) -> Array:
        state, label = token
        return jax.nn.log_softmax(model.logits(state))[label]

    tokens = (hidden[before], jnp.maximum(ids, 0))
    scores = jax.lax.map(log_p, tokens, batch_size=min(LOGIT_TOKENS, len(ids)))
    columns = jnp.stack([scores, jnp.ones_like(scores)], axis=1)
    return jax.ops.segment_sum(columns, branch, num_answers + 2)[1:-1]
