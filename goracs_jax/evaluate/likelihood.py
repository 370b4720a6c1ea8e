"""Log-likelihoods of each candidate's answer, which rank candidates without generation.

A prompt and all of its candidates form one sequence, [prompt, answer 1, answer 2, ...].
The attention mask and the positions make each answer follow the prompt directly,
without seeing the other answers. The model therefore reads the prompt once, and titles
of different lengths need no padding.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float32, Int

from goracs_jax.errors import NumericalError
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.passes import Pass, map_batches
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.texts import Text
from goracs_jax.llm.tokenization import tokenize
from goracs_jax.llm.tokens import Tokens, check_ids
from goracs_jax.mesh import DATA
from goracs_jax.models.decoder import Decoder, Layout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Tokens of an example whose logits are in memory at one time.
LOGIT_TOKENS = 512


def pack(
    texts: Sequence[Sequence[Text | tuple[str, str]]],
    tokenizer: "PreTrainedTokenizerFast",
    *,
    context: int,
    places: Sequence[str],
) -> Tokens:
    """Pack each prompt and its answers into one sequence of tokens.

    A prompt with one answer is tokenized as one text, as in training. The leading
    tokens that an example's texts share, up to the first token of any answer, are the
    prompt. The remaining tokens of each text are its answer, the end of text included.

    Args:
        texts: One list per example: its prompt with each of its answers.
        tokenizer: The model's tokenizer.
        context: Largest number of tokens of a prompt with one answer.
        places: The name of each example in error messages.

    Returns:
        The tokens. Their field `labels` does not contain targets but branches: 0 in the
        prompt, and i in the i-th answer.

    Raises:
        InputError: `tokenize` refuses a text.
    """
    ids, branches = [], []
    for each, place in zip(texts, places, strict=True):
        tokens = tokenize(
            each,
            tokenizer,
            labels="answer",
            context=context,
            places=[place] * len(each),
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
    tokens_per_batch: int | None = None,
    mapper: Mapper = map_batches,
) -> Float32[np.ndarray, "examples answers 2"]:
    """Return log p(answer | prompt), summed over the answer's tokens, and their number.

    Args:
        model: The decoder.
        packed: The sequences that `pack` made.
        tokens_per_batch: Padded tokens of a batch on each device; by default those of
            `goracs_jax.llm.profile.batch_tokens`.
        mapper: Runs a function over batches; see `goracs_jax.llm.passes.map_batches`.

    Returns:
        The sum in nats and the number of tokens of each answer. Both are 0 behind the
        last answer of an example that has fewer answers than others.

    Raises:
        InputError: A token id is outside the vocabulary.
        NumericalError: A sum is not finite.

    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.llm.tokens import ragged
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> packed = ragged([[5, 6, 7, 8, 9]], [[0, 0, 1, 1, 2]])  # 5 6, then 7 8 or 9
    >>> answer_likelihoods(model, packed)[0, :, 1].tolist()
    [2.0, 1.0]
    """
    check_ids(packed, model.config.vocab_size)
    run = likelihood_pass(model, answers=int(packed.labels.max()))
    size = tokens_per_batch or batch_tokens(model, "likelihood", packed)
    found = mapper(run, run.batches(packed, size))
    bad = np.flatnonzero(~np.isfinite(found).all((1, 2)))
    if len(bad):
        raise NumericalError(
            f"the likelihoods of example {bad[0] + 1} are not finite ({len(bad)} of "
            f"{len(found)} examples): check the model's weights, or use float32."
        )
    return found


def likelihood_pass(model: Decoder, *, answers: int) -> Pass:
    """Make the pass over packed sequences; see `answer_likelihoods`.

    Args:
        model: The decoder.
        answers: The largest number of answers of an example.

    Returns:
        From a batch to an array [batch, answers, 2].
    """
    return Pass(_of_batch, (*nnx.split(model), answers), model.execution)


@partial(jax.jit, static_argnums=2)
def _of_batch(graph, state, num_answers, ids, branches):
    score = partial(_of_example, nnx.merge(graph, state), num_answers)
    return jax.vmap(score, spmd_axis_name=DATA)(ids, branches)


def _of_example(
    model: Decoder,
    num_answers: int,
    ids: Int[Array, " time"],
    branch: Int[Array, " time"],
) -> Float32[Array, "answers 2"]:
    # Padding gets a branch of its own: a negative index would count from the end.
    branch = jnp.where(branch >= 0, branch, num_answers + 1)
    place = jnp.arange(len(ids))
    start = jax.ops.segment_min(place, branch, num_answers + 2)[branch]
    prompt = jnp.sum(branch == 0)
    positions = jnp.where(branch == 0, place, prompt + place - start)
    related = (branch == 0)[None, :] | (branch[:, None] == branch[None, :])
    hidden = model.hidden(ids, Layout(positions, related))
    # The hidden state of the prompt's last token predicts every answer's first token.
    before = jnp.where(place == start, prompt - 1, place - 1)

    def log_p(token: tuple[Array, Array]) -> Array:
        state, token_id = token
        return jax.nn.log_softmax(model.logits(state))[token_id]

    tokens = (hidden[before], jnp.maximum(ids, 0))
    scores = jax.lax.map(log_p, tokens, batch_size=min(LOGIT_TOKENS, len(ids)))
    columns = jnp.stack([scores, jnp.ones_like(scores)], axis=1)
    return jax.ops.segment_sum(columns, branch, num_answers + 2)[1:-1]
