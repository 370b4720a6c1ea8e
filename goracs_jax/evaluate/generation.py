"""Generated answers of many prompts: batches, the closing quote, and their text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from goracs_jax.errors import InputError
from goracs_jax.evaluate.beam import Ending, beam_search
from goracs_jax.llm.tokens import (
    Mapper,
    Tokens,
    check_ids,
    end_of_text,
    make_batches,
    map_batches,
    open_ended,
    ragged,
)
from goracs_jax.models.decoder import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def prompt_tokens(
    prompts: Sequence[str],
    tokenizer: "PreTrainedTokenizerFast",
    *,
    context: int,
    new: int,
    places: Sequence[str],
) -> Tokens:
    """Tokens of prompts, with room behind them.

    Args:
        prompts: The texts.
        tokenizer: Of the model.
        context: Most tokens that the model can take.
        new: Tokens that are to be generated.
        places: What errors call each prompt.

    Returns:
        The tokens; an end of text that the tokenizer adds is left out.

    Raises:
        InputError: If one leaves no room.
    """
    ids = open_ended(prompts, tokenizer)
    for row, place in zip(ids, places, strict=True):
        if len(row) + new > context:
            raise InputError(
                f"{place} has {len(row)} tokens; with {new} new ones that is more than "
                f"the model's context of {context}: shorten it, or generate fewer."
            )
    return ragged(ids)


def ending(
    tokenizer: "PreTrainedTokenizerFast", vocab_size: int, quotes: int
) -> Ending:
    """The end of an answer: end of text, or the closing quotation mark.

    Args:
        tokenizer: Of the model.
        vocab_size: Rows of the model's head; it may have more than the tokenizer.
        quotes: Quotation marks of a whole answer; 0 where titles are not quoted.

    Returns:
        A weight for every token: how many quotation marks it has.
    """
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    weights = np.zeros(vocab_size, np.int32)
    if quotes:
        counts = [(name or "").count('"') for name in names][:vocab_size]
        weights[: len(counts)] = counts
    limit = max(quotes, 1)
    weights[end_of_text(tokenizer)] = limit
    return Ending(jnp.asarray(weights), jnp.int32(limit))


def generate(
    model: Decoder,
    prompts: Tokens,
    ends: Ending,
    *,
    beams: int = 2,
    new: int = 128,
    tokens_per_batch: int = 4096,
    mapper: Mapper = map_batches,
) -> Int32[np.ndarray, "examples new"]:
    """The best beam of each prompt.

    Args:
        model: The decoder.
        prompts: The examples, answers left out.
        ends: When a text is over.
        beams: As `beam_search`.
        new: As `beam_search`.
        tokens_per_batch: Padded tokens of the prompts in one batch.
        mapper: Runs a function over batches; see `goracs_jax.llm.tokens.map_batches`.

    Returns:
        Ids, PADDING behind the end.
    """
    check_ids(prompts, model.config.vocab_size)
    batches = make_batches(prompts, tokens_per_batch=tokens_per_batch)

    def best(ids, labels):
        del labels
        return beam_search(model, jnp.asarray(ids), ends, beams=beams, new=new).ids[
            :, 0
        ]

    return mapper(best, batches)


def texts_of(
    ids: Int32[np.ndarray, "examples new"], tokenizer: "PreTrainedTokenizerFast"
) -> list[str]:
    """The generated texts, without special tokens."""
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    return [str(tokenizer.decode(row[row >= 0].tolist(), **options)) for row in ids]
