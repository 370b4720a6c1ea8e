"""Texts that are too long: the oldest of their input is cut, or they are left out."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from goracs_jax.data.examples import Example
from goracs_jax.data.skipped import Skipped
from goracs_jax.errors import RecordError
from goracs_jax.llm.prompts import TEMPLATES

#: Examples whose tokens are counted together.
TOGETHER = 1000
#: Characters that are given up so that a text starts with a whole word.
WORD = 40

Record = Mapping[str, Any]


class Limit(NamedTuple):
    """How long a text may be, prompt and answer and the end of the text."""

    tokens: int
    count: Callable[[Sequence[Record]], Sequence[int]]  # the tokens of each record
    cut: bool  # whether the input of a longer one is cut
    flag: str  # what the number of tokens is called in messages


class Fitting(NamedTuple):
    """Examples that fit a limit, and the records of those that were cut, by place."""

    examples: list[Example]
    uncut: dict[str, dict]


def fitting(
    numbered: Iterable[tuple[int, Example]], limit: Limit, skipped: Skipped | None
) -> Fitting:
    """Cut the inputs of texts that are too long, or leave the texts out.

    Instruction and output stay whole. What is cut is the oldest side of the input,
    which is its start: of a history the oldest titles, of which one is left; of another
    text the first words.

    Args:
        numbered: Examples with their row numbers in the file.
        limit: How long they may be.
        skipped: Where texts go that are too long and not cut; None refuses them.

    Raises:
        RecordError: A text is too long and is not to be left out.

    >>> words = lambda records: [len(record["input"].split()) for record in records]
    >>> record = {"instruction": "i", "input": "a b c d", "output": "o"}
    >>> limit = Limit(2, words, True, "--max-length")
    >>> fitting([(0, Example(record, "t.jsonl:1"))], limit, None).examples[0].record
    {'instruction': 'i', 'input': 'c d', 'output': 'o'}
    """
    found = Fitting([], {})
    for some in _together(numbered):
        counts = limit.count([example.record for _, example in some])
        for (row, example), count in zip(some, counts, strict=True):
            record = example.record
            if count > limit.tokens:
                record = _shortened(record, limit) if limit.cut else None
            if record is None:
                error = _too_long(example, count, limit)
                if skipped is None:
                    raise error
                skipped.add(row, example.place, error, example.record)
                continue
            if record is not example.record:
                found.uncut[example.place] = example.record
            found.examples.append(example._replace(record=record))
    return found


class Cuts(NamedTuple):
    """The inputs that are left when the oldest pieces of one are cut."""

    most: int  # pieces that can be cut
    without: Callable[[int], str]  # the input without so many of the oldest pieces


def cuts_of(record: Record) -> Cuts:
    r"""Find where the input of a record can be cut.

    >>> record = {"input": '"Heat", "Fargo", "Alien"'}
    >>> cuts_of(record).without(1)
    '"Fargo", "Alien"'
    >>> text = 'Liked: "Heat", "Cube"\nDisliked: "Fargo"\nOne more: "Alien"'
    >>> print(cuts_of({"input": text, "liked": [True, False, True]}).without(2))
    Liked: "Cube"
    Disliked: none
    One more: "Alien"
    """
    text = record.get("input", "")
    return _by_rating(text, record.get("liked")) or _by_title(text) or _by_word(text)


def _shortened(record: Record, limit: Limit) -> dict | None:
    """Cut as little of the input as is enough; None if all of it is not."""
    cuts = cuts_of(record)
    shorter = lambda k: {**record, "input": cuts.without(k)}
    fits = lambda k: limit.count([shorter(k)])[0] <= limit.tokens
    # A cut can lengthen a text by a token or two, so what is found is tried.
    least = bisect_left(range(cuts.most + 1), True, lo=1, key=fits)
    return next((shorter(k) for k in range(least, cuts.most + 1) if fits(k)), None)


def _by_rating(text: str, liked: Any) -> Cuts | None:
    """Cut the history of click prediction, which is in two lists, by age."""
    template = TEMPLATES["ctr"]
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.*)", re.escape(template.input))
    match = re.fullmatch(pattern, text)
    if not match or not isinstance(liked, list):
        return None
    lists = [_titles(match[name], template.empty) for name in ("liked", "disliked")]
    sizes = [liked.count(True), liked.count(False)]
    if list(map(len, lists)) != sizes or sum(sizes) != len(liked):
        return None

    def without(k: int) -> str:
        gone = [liked[:k].count(True), liked[:k].count(False)]
        left = [
            _listed(titles[n:]) or template.empty
            for titles, n in zip(lists, gone, strict=True)
        ]
        return template.input.format(
            liked=left[0], disliked=left[1], target=match["target"]
        )

    return Cuts(len(liked) - 1, without)


def _by_title(text: str) -> Cuts | None:
    if not (titles := _titles(text)) or len(titles) < 2:
        return None
    return Cuts(len(titles) - 1, lambda k: _listed(titles[k:]))


def _by_word(text: str) -> Cuts:
    def without(k: int) -> str:
        if text[k - 1].isspace():
            return text[k:].lstrip()
        space = re.compile(r"\s+").search(text, k, k + WORD)
        return text[space.end() if space else k :]

    return Cuts(len(text) - 1, without)


def _titles(text: str, empty: str | None = None) -> list[str]:
    """Read a list of titles as templates write it; empty if it is none."""
    quote, separator = TEMPLATES["seqrec"].quote, TEMPLATES["seqrec"].separator
    inner = text[1:-1]
    if text == empty or len(text) < 2 or not text[0] == text[-1] == quote:
        return []
    return inner.split(f"{quote}{separator}{quote}")


def _listed(titles: Sequence[str]) -> str:
    quote, separator = TEMPLATES["seqrec"].quote, TEMPLATES["seqrec"].separator
    return separator.join(f"{quote}{title}{quote}" for title in titles)


def _too_long(example: Example, count: int, limit: Limit) -> RecordError:
    cure = "cut it with --max-length or --too-long cut"
    if limit.cut:
        cure = "it is no longer enough to cut its input: shorten it"
    return RecordError(
        f"{example.place} has {count} tokens, more than {limit.flag} of "
        f"{limit.tokens}: {cure}, or leave it out with --bad-rows skip.",
        "too long",
    )


def _together(
    numbered: Iterable[tuple[int, Example]],
) -> Iterator[list[tuple[int, Example]]]:
    each = iter(numbered)
    while some := list(islice(each, TOGETHER)):
        yield some
