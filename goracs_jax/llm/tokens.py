"""Turn texts into token ids, and say which tokens the loss scores."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from goracs_jax.choices import Scored as Scored
from goracs_jax.errors import InputError, one_line
from goracs_jax.llm.texts import NOT_SCORED as NOT_SCORED
from goracs_jax.llm.texts import Between, Span, Text, common, first_scored
from goracs_jax.models.tokenizer import load_tokenizer as load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Texts that are tokenised together: as Python objects, tokens take more than ten times
#: the memory of their arrays.
TOGETHER = 1000
#: The id that fills a row after the end of its text; the models embed it as token 0.
PADDING = -1


class Tokens(NamedTuple):
    """Tokenised examples, one after the other in flat arrays.

    Example i is `ids[offsets[i]:offsets[i + 1]]`. `labels` has at each place the same
    id, or -100 where the token is not scored. The loss shifts labels; here they are not
    shifted.
    """

    ids: Int32[np.ndarray, " total"]
    labels: Int32[np.ndarray, " total"]
    offsets: Int64[np.ndarray, " examples_and_one"]

    @property
    def num_examples(self) -> int:
        """The number of examples (`len` counts the fields of the tuple)."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64[np.ndarray, " examples"]:
        """The number of tokens of each example."""
        return np.diff(self.offsets)

    @property
    def scored(self) -> Int64[np.ndarray, " examples"]:
        """The number of scored tokens of each example."""
        before = np.append(0, np.cumsum(self.labels >= 0))
        return np.diff(before[self.offsets])


def ragged(
    ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]] | None = None
) -> Tokens:
    """Join lists of ids, and of labels of the same lengths, into `Tokens`.

    Args:
        ids: One list per example.
        labels: One list per example; if None, no token is scored.

    >>> ragged([[5, 6], [7]]).offsets
    array([0, 2, 3])
    """
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    flat = lambda rows: np.fromiter((i for row in rows for i in row), np.int32)
    if labels is None:
        return Tokens(flat(ids), np.full(offsets[-1], NOT_SCORED, np.int32), offsets)
    return Tokens(flat(ids), flat(labels), offsets)


def tokenize(
    texts: Sequence[Text | tuple[str, str]],
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
    if not texts:
        raise InputError("there are no examples to tokenise: give at least one.")
    if len(texts) > TOGETHER:
        named = places or [f"example {i + 1}" for i in range(len(texts))]
        some = (slice(i, i + TOGETHER) for i in range(0, len(texts), TOGETHER))
        given = {"labels": labels, "context": context}
        return joined(
            [tokenize(texts[s], tokenizer, places=named[s], **given) for s in some]
        )
    read = [x if isinstance(x, Text) else Text.of(*x) for x in texts]
    options = {"add_special_tokens": read[0].special}
    eos = end_of_text(tokenizer) if read[0].ended else None
    encoded = encode(
        [text.text for text in read], tokenizer, return_offsets_mapping=True, **options
    )
    beside = _beside(read, tokenizer, options) if labels == "answer" else {}
    all_ids, all_labels = [], []
    for i, text in enumerate(read):
        place = places[i] if places else f"example {i + 1}"
        ids, spans = list(encoded["input_ids"][i]), encoded["offset_mapping"][i]
        scored = list(ids)
        if labels == "answer":
            scored = [NOT_SCORED] * len(ids)
            for answer in text.answers:
                part = (
                    first_scored(spans, answer)
                    if isinstance(answer, Span)
                    else _between(ids, answer, beside, place)
                )
                scored[part] = ids[part]
        if eos is not None:
            if ids[-1:] == [eos]:  # some tokenizers end the text themselves
                del ids[-1], scored[-1]
            ids.append(eos)
            scored.append(eos)
        if len(ids) > context:
            raise InputError(
                f"{place} has {len(ids)} tokens, more than the model's context "
                f"of {context}: shorten it or leave it out."
            )
        if all(label == NOT_SCORED for label in scored[1:]):
            raise InputError(
                f"{place} has no token to score: give it a prompt or an answer."
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
        raise InputError(
            f"{place}: the chat template writes an answer otherwise once more turns "
            "follow: give one that marks answers ({% generation %}) with --template "
            "FILE, or score everything with --labels all."
        )
    return slice(start, end)


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


def check_ids(tokens: Tokens, vocab_size: int):
    """Check that every id is in a model's vocabulary.

    JAX would read some other row of the embedding table, without an error.

    Args:
        tokens: The examples.
        vocab_size: Rows of the model's embedding table.

    Raises:
        InputError: An id is negative or at least `vocab_size`.

    >>> check_ids(ragged([[0, 2], [1]]), vocab_size=3)
    """
    bad = np.flatnonzero((tokens.ids < 0) | (tokens.ids >= vocab_size))
    if len(bad):
        example = int(np.searchsorted(tokens.offsets, bad[0], side="right"))
        raise InputError(
            f"example {example} has token id {tokens.ids[bad[0]]}, the model has ids 0 "
            f"to {vocab_size - 1}: use the tokenizer that belongs to the model."
        )


def joined(parts: Sequence[Tokens]) -> Tokens:
    """Join the examples of several parts.

    Args:
        parts: At least one.

    >>> joined([ragged([[1], [2, 3]]), ragged([[4]])]).offsets
    array([0, 1, 3, 4])
    """
    ids, labels, _ = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    lengths = np.concatenate([part.lengths for part in parts])
    return Tokens(ids, labels, np.cumsum([0, *lengths], dtype=np.int64))


def take(tokens: Tokens, rows: Sequence[int] | np.ndarray) -> Tokens:
    """Select examples, in the order of `rows`.

    >>> take(ragged([[1], [2, 3], [4]]), [1, 0]).ids
    array([2, 3, 1], dtype=int32)
    """
    spans = [slice(*tokens.offsets[row : row + 2]) for row in rows]
    ids = np.concatenate([tokens.ids[span] for span in spans])
    labels = np.concatenate([tokens.labels[span] for span in spans])
    return Tokens(ids, labels, np.cumsum([0, *tokens.lengths[np.asarray(rows)]]))
