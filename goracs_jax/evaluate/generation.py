"""Generate the answers to many prompts, batch by batch, up to the closing quote."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32

from goracs_jax.errors import InputError
from goracs_jax.evaluate.beam import Ending, generation_pass
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.passes import map_batches
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.texts import Text
from goracs_jax.llm.tokenization import end_of_text, open_ended
from goracs_jax.llm.tokens import Tokens, check_ids, ragged
from goracs_jax.models.decoder import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def prompt_tokens(
    prompts: Sequence[str | Text],
    tokenizer: "PreTrainedTokenizerFast",
    *,
    context: int,
    new: int,
    places: Sequence[str],
) -> Tokens:
    """Tokenize prompts and check that the context has room for their answers.

    Args:
        prompts: The prompts.
        tokenizer: The model's tokenizer.
        context: Largest number of tokens that the model can take.
        new: Number of tokens to generate.
        places: The name of each prompt in error messages.

    Returns:
        The tokens, without an end of text that the tokenizer may add.

    Raises:
        InputError: A prompt leaves no room for `new` tokens.
    """
    ids = open_ended(prompts, tokenizer)
    for row, place in zip(ids, places, strict=True):
        if len(row) + new > context:
            raise InputError(
                f"{place} has {len(row)} tokens; with {new} new ones that is more than "
                f"the model's context of {context}: shorten it, or generate less."
            )
    return ragged(ids)


def closing(text: str, answer: str, tokenizer: "PreTrainedTokenizerFast") -> int | None:
    """Return the token that a template writes behind an answer.

    It ends a turn, and need not be the end of text.

    Args:
        text: A text that ends with an answer and what closes it.
        answer: The answer.
        tokenizer: The model's tokenizer.

    Returns:
        The first token behind the answer that the tokenizer has as a whole; None if
        there is none.
    """
    _, _, behind = text.rpartition(answer.strip())
    added = tokenizer.get_added_vocab().values()
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    return next((token for token in ids if token in added), None)


def ending(
    tokenizer: "PreTrainedTokenizerFast",
    vocab_size: int,
    quotes: int,
    closing: int | None = None,
) -> Ending:
    """Say when an answer ends: at the end of text, or at the last quotation mark.

    Args:
        tokenizer: The model's tokenizer.
        vocab_size: Rows of the model's output head, which may exceed the vocabulary.
        quotes: The most quotation marks of an answer, those inside a title included; 0
            if titles are not quoted.
        closing: The token that ends a turn, if it is not the end of text.

    Returns:
        The number of quotation marks in every token, and the number that ends an
        answer.

    Raises:
        InputError: The end of text is outside the vocabulary.
    """
    weights = np.zeros(vocab_size, np.int32)
    for name, token in tokenizer.get_vocab().items() if quotes else ():
        if token < vocab_size:
            weights[token] = name.count('"')
    limit = max(quotes, 1)
    stops = [end_of_text(tokenizer), *([] if closing is None else [closing])]
    check_ids(ragged([stops]), vocab_size)
    weights[stops] = limit
    return Ending(weights, np.array(limit, np.int32))


def generate(
    model: Decoder,
    prompts: Tokens,
    ends: Ending,
    *,
    beams: int = 2,
    new: int = 128,
    tokens_per_batch: int | None = None,
    mapper: Mapper = map_batches,
) -> Int32[np.ndarray, "examples new"]:
    """Generate the best beam of each prompt.

    Args:
        model: The decoder.
        prompts: The prompts, without answers.
        ends: When a text ends.
        beams: Number of beams; see `beam_search`.
        new: Largest number of tokens to generate.
        tokens_per_batch: Padded tokens of a batch on each device; by default those of
            `goracs_jax.llm.profile.batch_tokens`.
        mapper: Runs a function over batches; see `goracs_jax.llm.passes.map_batches`.

    Returns:
        The generated token ids, followed by PADDING.
    """
    check_ids(prompts, model.config.vocab_size)
    run = generation_pass(model, ends, beams=beams, new=new)
    size = tokens_per_batch or batch_tokens(
        model, "generation", prompts, beams=beams, new=new
    )
    return mapper(run, run.batches(prompts, size))


def texts_of(
    ids: Int32[np.ndarray, "examples new"], tokenizer: "PreTrainedTokenizerFast"
) -> list[str]:
    """Decode generated token ids into texts, without special tokens.

    Args:
        ids: Token ids, followed by PADDING.
        tokenizer: The model's tokenizer.

    Returns:
        One text per row.
    """
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    return [str(tokenizer.decode(row[row >= 0].tolist(), **options)) for row in ids]
