"""Turn texts into token ids, and say which tokens the loss scores."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from goracs_jax.choices import Scored as Scored
from goracs_jax.errors import InputError, RecordError, one_line
from goracs_jax.llm.texts import (
    NOT_SCORED,
    WRITES_ANEW,
    Between,
    Span,
    Text,
    common,
    overlapping,
)
from goracs_jax.llm.tokens import Tokens, joined, ragged
from goracs_jax.models.tokenizer import load_tokenizer as load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Texts that are tokenised together: as Python objects, tokens take more than ten times
#: the memory of their arrays.
TOGETHER = 1000
#: What is wrong with a record whose answers cannot be scored, by which it is counted.
UNSCORED = "without an answer to score"
Item = TypeVar("Item")


def in_groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of so many items, of which the last may have fewer.

    >>> [*in_groups("abc", 2)]
    [['a', 'b'], ['c']]
    """
    each = iter(items)  # itertools.batched is of Python 3.12
    while group := list(islice(each, size)):
        yield group


def tokenize(
    texts: Iterable[Text | tuple[str, str]],
    tokenizer: "PreTrainedTokenizerFast",
    *,
    labels: Scored = "all",
    context: int,
    places: Sequence[str] | None = None,
) -> Tokens:
    """Tokenise each text in one piece, and label scored tokens.

    A pair of prompt and answer is followed by the end of text, which is scored. With
    labels="answer" a token of it is scored if it ends behind the prompt's last
    character: a token across the border belongs to the answer.

    Args:
        texts: Pairs of prompt and answer, or texts with their answers, which all have
            the same tokens put around them.
        tokenizer: A fast tokenizer with an end-of-text token.
        labels: Which tokens are scored: all (as GORACS does for sequential
            recommendation), or those of the answers (for click-through prediction).
        context: The most tokens that the model can read.
        places: The names of the texts in errors; "example 1" and so on if None.

    Raises:
        InputError: There is no example, an example is longer than the context or has no
            scored token, or the tokenizer has no end-of-text token.
    """
    tokens = joined(
        _tokenized(group, tokenizer, labels, context, _place_of(places, i * TOGETHER))
        for i, group in enumerate(in_groups(texts, TOGETHER))
    )
    if not tokens.num_examples:
        raise InputError("there are no examples to tokenise: give at least one.")
    return tokens


def _place_of(places: Sequence[str] | None, first: int) -> Callable[[int], str]:
    """Return a function from the number of a text of a group to its name."""
    if places is None:
        return lambda i: f"example {first + i + 1}"
    return lambda i: places[first + i]


def _tokenized(
    texts: Sequence[Text | tuple[str, str]],
    tokenizer: "PreTrainedTokenizerFast",
    labels: Scored,
    context: int,
    place_of: Callable[[int], str],
) -> Tokens:
    read = [x if isinstance(x, Text) else Text.of(*x) for x in texts]
    options = {"add_special_tokens": read[0].special}
    eos = end_of_text(tokenizer) if read[0].ended else None
    encoded = encode(
        [text.text for text in read], tokenizer, return_offsets_mapping=True, **options
    )
    beside = _beside(read, tokenizer, options) if labels == "answer" else {}
    all_ids, all_labels = [], []
    for i, text in enumerate(read):
        ids, spans = list(encoded["input_ids"][i]), encoded["offset_mapping"][i]
        scored = list(ids)
        if labels == "answer":
            scored = [NOT_SCORED] * len(ids)
            for answer in text.answers:
                part = (
                    overlapping(spans, answer)
                    if isinstance(answer, Span)
                    else _between(ids, answer, beside, place_of(i))
                )
                scored[part] = ids[part]
        if eos is not None:
            if ids[-1:] == [eos]:  # some tokenizers end the text themselves
                del ids[-1], scored[-1]
            ids.append(eos)
            scored.append(eos)
        if len(ids) > context:
            raise InputError(
                f"{place_of(i)} has {len(ids)} tokens, more than the model's context "
                f"of {context}: shorten it or leave it out."
            )
        if all(label == NOT_SCORED for label in scored[1:]):
            raise RecordError(
                f"{place_of(i)} has no token to score: give it a prompt or an answer.",
                UNSCORED,
            )
        all_ids.append(ids)
        all_labels.append(scored)
    return ragged(all_ids, all_labels)


def _beside(
    texts: Sequence[Text],
    tokenizer: "PreTrainedTokenizerFast",
    options: Mapping[str, Any],
) -> dict[str | None, list[int]]:
    """Tokenise what stands in front of answers, and goes up to their ends."""
    found = {
        part: None
        for text in texts
        for answer in text.answers
        if isinstance(answer, Between)
        for part in answer
        if part is not None
    }
    if not found:
        return {}
    rows = encode(list(found), tokenizer, **options)["input_ids"]
    return dict(zip(found, map(list, rows), strict=True))


def _between(
    ids: Sequence[int],
    answer: Between,
    beside: Mapping[str | None, Sequence[int]],
    place: str,
) -> slice:
    start = common(ids, beside[answer.before])
    end = len(ids) if answer.upto is None else common(ids, beside[answer.upto])
    if end <= start:
        raise RecordError(f"{place}: {WRITES_ANEW}", UNSCORED)
    return slice(start, end)


def check_answers(
    texts: Sequence[Text],
    tokenizer: "PreTrainedTokenizerFast",
    places: Sequence[str],
) -> list[RecordError | None]:
    """Find the texts whose answers have no tokens to score.

    Args:
        texts: At least one.
        tokenizer: A fast tokenizer with an end-of-text token.
        places: The names of the texts in errors.

    Returns:
        What is wrong with each text; None where nothing is.
    """
    try:
        _tokenized(texts, tokenizer, "answer", sys.maxsize, places.__getitem__)
        return [None] * len(texts)
    except RecordError as error:
        if len(texts) == 1:
            return [error]
    halves = slice(len(texts) // 2), slice(len(texts) // 2, None)
    return [
        error
        for half in halves
        for error in check_answers(texts[half], tokenizer, places[half])
    ]


def encode(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerFast", **options: Any
) -> Mapping[str, Any]:
    """Call a tokenizer on texts.

    Args:
        texts: The texts.
        tokenizer: A fast tokenizer.
        options: What else the tokenizer is to know or to return.

    Returns:
        By name what the tokenizer returns, such as "input_ids".

    Raises:
        InputError: The tokenizer cannot read them, such as one without a token for
            characters that it does not know.
    """
    plain = {"return_attention_mask": False, "return_token_type_ids": False}
    try:
        return tokenizer(list(texts), verbose=False, **plain, **options)
    except Exception as error:  # noqa: BLE001 (tokenizers has no type of its own)
        raise InputError(
            f"the tokenizer cannot read the texts ({one_line(error)}): take its files "
            "from where the model was published."
        ) from None


def count_tokens(
    texts: Sequence[Text], tokenizer: "PreTrainedTokenizerFast"
) -> list[int]:
    """Count the tokens of each text as `tokenize` does, with the end of the text.

    Args:
        texts: At least one; all have the same tokens put around them.
        tokenizer: A fast tokenizer with an end-of-text token.
    """
    options = {"add_special_tokens": texts[0].special}
    rows = encode([text.text for text in texts], tokenizer, **options)["input_ids"]
    if not texts[0].ended:
        return [*map(len, rows)]
    eos = end_of_text(tokenizer)
    return [len(row) + (row[-1:] != [eos]) for row in rows]


def end_of_text(tokenizer: "PreTrainedTokenizerFast") -> int:
    """Return the id of the end-of-text token.

    Raises:
        InputError: The tokenizer has none.
    """
    eos = tokenizer.eos_token_id
    if not isinstance(eos, int):
        raise InputError(
            "the tokenizer has no end-of-text token: set eos_token in its "
            "tokenizer_config.json."
        )
    return eos


def open_ended(
    texts: Sequence[str | Text], tokenizer: "PreTrainedTokenizerFast"
) -> list[list[int]]:
    """Tokenise texts that are to be continued, without an end of text.

    Some tokenizers add one themselves; it is removed.
    """
    eos = end_of_text(tokenizer)
    read = [x if isinstance(x, Text) else Text(x) for x in texts]
    special = all(text.special for text in read)
    plain = [text.text for text in read]
    rows = map(list, encode(plain, tokenizer, add_special_tokens=special)["input_ids"])
    return [row[:-1] if row[-1:] == [eos] else row for row in rows]
