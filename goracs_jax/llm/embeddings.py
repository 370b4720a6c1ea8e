"""Embed texts as one vector each, by the LLM itself or by a sentence encoder."""

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from goracs_jax.errors import InputError, NumericalError
from goracs_jax.llm.batches import TOKENS_PER_BATCH, Mapper
from goracs_jax.llm.lower import LowerTable, reading
from goracs_jax.llm.passes import Pass, map_batches
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.tokenization import TOGETHER, encode, in_groups
from goracs_jax.llm.tokens import Tokens, check_ids, joined, ragged
from goracs_jax.models.attention import rows_at
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.encoder import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

#: How the states of an example's tokens become one vector.
Pooling: TypeAlias = Literal["mean", "weighted", "last", "prompt"]


def embed_with_decoder(
    model: Decoder,
    tokens: Tokens,
    *,
    pooling: Pooling = "mean",
    tokens_per_batch: int | None = None,
    mapper: Mapper = map_batches,
    lower: LowerTable | None = None,
) -> Float32[np.ndarray, "examples dim"]:
    """Embed each example by the hidden states of a decoder after the final norm.

    x_i = sum_t w_t h_it, in float32, without padding, with the weights

        mean      w_t = 1 / T_i
        weighted  w_t = t / (1 + 2 + ... + T_i), since later tokens have read more of
                  the text; RDS+ (Ivison et al., 2025) takes these
        last      1 for the last token, t = T_i, and 0 for the others
        prompt    1 / P_i for the P_i tokens before the first that is scored, as a rule
                  the prompt without its answer, and 0 for the others.

    Args:
        model: The decoder.
        tokens: The examples; labels matter for the last kind alone.
        pooling: The weights of an example's tokens.
        tokens_per_batch: Padded tokens of a batch on each device; by default those of
            `goracs_jax.llm.profile.batch_tokens`.
        mapper: Runs a function over batches; see `goracs_jax.llm.passes.map_batches`.
        lower: What the layers below all adapters make of the texts, if it was kept.

    Returns:
        One row per example, in input order.

    Raises:
        InputError: An id is outside the vocabulary.
        NumericalError: A row is not finite.

    >>> from goracs_jax.models import DecoderConfig
    >>> model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    >>> embed_with_decoder(model, ragged([[1, 2, 3], [4]])).shape
    (2, 32)
    """
    check_ids(tokens, model.config.vocab_size)
    run = embedding_pass(model, pooling)
    size = tokens_per_batch or batch_tokens(model, "embedding", tokens)
    return _finite(mapper(reading(run, lower, tokens), run.batches(tokens, size)))


def embedding_pass(model: Decoder, pooling: Pooling = "mean") -> Pass:
    """Make the pass that embeds examples; see `embed_with_decoder`.

    Args:
        model: The decoder.
        pooling: The weights of an example's tokens.

    Returns:
        From a batch, and its lower states where these were kept, to an array
        [batch, dim].
    """
    vectors = {
        "mean": _decoder_means,
        "weighted": _decoder_weighted,
        "last": _decoder_lasts,
        "prompt": _decoder_prompts,
    }[pooling]
    return Pass(vectors, nnx.split(model), model.execution)


def embed_with_encoder(
    encoder: Encoder,
    tokenizer: "PreTrainedTokenizerFast",
    texts: Iterable[str],
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    mapper: Mapper = map_batches,
) -> Float32[np.ndarray, "texts dim"]:
    """Embed each text by a sentence encoder, as sentence-transformers does.

    Pooling, normalisation and the longest text are those of the encoder's folder.

    Args:
        encoder: The encoder.
        tokenizer: The tokenizer of the same folder.
        texts: The texts.
        tokens_per_batch: Padded tokens of a batch.
        mapper: Runs a function over batches; see `goracs_jax.llm.passes.map_batches`.

    Returns:
        One row per text, in input order.

    Raises:
        InputError: There is no text, or an id is outside the vocabulary.
        NumericalError: A row is not finite.
    """
    tokens, num_cut = encoder_tokens(encoder, tokenizer, texts)
    if num_cut:
        logger.warning(
            "%d of %d texts were cut to the encoder's %d tokens.",
            num_cut,
            tokens.num_examples,
            encoder.config.max_tokens,
        )
    run = Pass(_encoder_vectors, nnx.split(encoder))
    return _finite(mapper(run, run.batches(tokens, tokens_per_batch)))


def encoder_tokens(
    encoder: Encoder, tokenizer: "PreTrainedTokenizerFast", texts: Iterable[str]
) -> tuple[Tokens, int]:
    """Tokenise texts for an encoder and cut them to its length.

    Args:
        encoder: The encoder.
        tokenizer: The tokenizer of the same folder.
        texts: The texts.

    Returns:
        The tokens, without labels, and how many texts were cut.

    Raises:
        InputError: There is no text, or an id is outside the vocabulary.
    """
    config, num_cut = encoder.config, 0
    # The tokenizer cuts texts and keeps its closing token. The encoder's length counts,
    # whatever the tokenizer's own file says.
    ids_of = lambda texts, **kw: encode(texts, tokenizer, **kw)["input_ids"]

    def parts() -> Iterator[Tokens]:
        nonlocal num_cut
        for group in in_groups(texts, TOGETHER):
            group = [text.lower() for text in group] if config.lowercase else group
            ids = ids_of(group, truncation=True, max_length=config.max_tokens)
            full = [i for i, row in enumerate(ids) if len(row) == config.max_tokens]
            whole = ids_of([group[i] for i in full], truncation=False) if full else []
            num_cut += sum(len(row) > config.max_tokens for row in whole)
            yield ragged(ids)

    tokens = joined(parts())
    if not tokens.num_examples:
        raise InputError("there are no texts to embed: give at least one.")
    check_ids(tokens, config.vocab_size)
    return tokens, num_cut


@jax.jit
def _decoder_means(graph, state, ids, labels, lower=None):
    del labels
    return _mean(_hidden(graph, state, ids, lower), ids)


@jax.jit
def _decoder_weighted(graph, state, ids, labels, lower=None):
    del labels
    places = jnp.arange(1.0, ids.shape[1] + 1)
    return _mean(_hidden(graph, state, ids, lower), ids, places)


@jax.jit
def _decoder_prompts(graph, state, ids, labels, lower=None):
    before = jnp.cumsum(labels >= 0, axis=1) == 0
    hidden = _hidden(graph, state, ids, lower)
    return _mean(hidden, jnp.where(before, ids, -1))


@jax.jit
def _decoder_lasts(graph, state, ids, labels, lower=None):
    del labels
    last, text = last_places(ids)[:, None], ids if lower is None else lower
    return nnx.merge(graph, state).hidden_at(text, last)[:, 0].astype(jnp.float32)


@jax.jit
def _encoder_vectors(graph, state, ids, labels):
    del labels
    encoder = nnx.merge(graph, state)
    hidden = encoder.hidden(ids)
    x = {
        "mean": lambda: _mean(hidden, ids),
        "cls": lambda: hidden[:, 0],
        "max": lambda: jnp.max(
            hidden, 1, where=(ids >= 0)[..., None], initial=-jnp.inf
        ),
    }[encoder.config.pooling]()
    if encoder.config.normalize:
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return x


def _hidden(graph, state, ids, lower):
    return nnx.merge(graph, state).hidden(ids if lower is None else lower)


def at_last_token(
    hidden: Float[Array, "batch time dim"], ids: Int[Array, "batch time"]
) -> Float[Array, "batch dim"]:
    """Return the state of each row's last token; of a row without tokens, its first.

    >>> at_last_token(jnp.array([[[1.0], [2.0], [3.0]]]), jnp.array([[7, 7, -1]]))
    Array([[2.]], dtype=float32)
    """
    return rows_at(hidden, last_places(ids)[:, None])[:, 0]


def last_places(ids: Int[Array, "batch time"]) -> Int[Array, " batch"]:
    """Return the place of each row's last token; 0 for a row without tokens."""
    return jnp.maximum(jnp.sum(ids >= 0, axis=1) - 1, 0)


def _mean(
    hidden: Float[Array, "batch time dim"],
    ids: Int[Array, "batch time"],
    weights: Float32[Array, " time"] | None = None,
) -> Float32[Array, "batch dim"]:
    real, states = (ids >= 0)[:, :, None], hidden.astype(jnp.float32)
    counts = real
    if weights is not None:
        counts, states = real * weights[:, None], states * weights[:, None]
    # where, not a product: the states of padding may be anything, infinity too.
    total = jnp.sum(jnp.where(real, states, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(counts, axis=1), 1)


def _finite(rows: Float32[np.ndarray, "rows dim"]) -> Float32[np.ndarray, "rows dim"]:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise NumericalError(
            f"the embedding of example {bad[0] + 1} is not finite ({len(bad)} of "
            f"{len(rows)}): check the model's weights, or load it in float32."
        )
    return rows
