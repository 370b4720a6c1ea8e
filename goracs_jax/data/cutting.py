"""Texts that are too long: their oldest side is cut, or they are left out."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from goracs_jax.data.chats import ALPACA
from goracs_jax.data.examples import Example
from goracs_jax.data.skipped import Skipped
from goracs_jax.data.turns import turns_of
from goracs_jax.errors import RecordError
from goracs_jax.llm.prompts import TEMPLATES
from goracs_jax.llm.texts import Text
from goracs_jax.llm.tokenization import TOGETHER, in_groups

#: Characters that are given up so that a text starts with a whole word.
WORD = 40


#: From examples and their texts to what is wrong with each beside its length.
Check = Callable[[Sequence[Example], Sequence[Text]], Sequence[RecordError | None]]


def no_faults(examples: Sequence[Example], texts: Sequence[Text]) -> list[None]:
    """Find nothing wrong with any text."""
    return [None] * len(texts)


class Limit(NamedTuple):
    """How long a text may be, prompt and answer and the end of the text."""

    tokens: int
    write: Callable[[Example], Text]  # with the template that the model reads
    count: Callable[[Sequence[Text]], Sequence[int]]  # the tokens of each text
    cut: bool  # whether the oldest side of a longer one is cut
    flag: str  # what the number of tokens is called in messages
    check: Check = no_faults


class Fitting(NamedTuple):
    """An example that fits a limit, and whether it was cut to that."""

    example: Example
    cut: bool


def fitting(
    numbered: Iterable[tuple[int, Example]],
    limit: Limit,
    long: Skipped | None,
    bad: Skipped | None = None,
) -> Iterator[Fitting]:
    """Cut texts that are too long at their oldest side, or leave them out.

    Instruction and output stay whole. What is cut is the start of the input: of a
    history the oldest titles, of which one is left; of another text the first words. Of
    a chat it is the oldest turns: a system message, the last question and its answer
    stay.

    Args:
        numbered: Examples with their row numbers in the file.
        limit: How long they may be.
        long: Where texts go that are too long and not cut; None refuses them.
        bad: Where examples go that the template cannot write; likewise.

    Yields:
        The examples that fit, in their order.

    Raises:
        RecordError: An example is not to be left out.

    >>> count = lambda texts: [len(text.text.split()) for text in texts]
    >>> write = lambda example: Text(example.record["input"])
    >>> limit = Limit(2, write, count, True, "--max-length")
    >>> record = {"instruction": "i", "input": "a b c d", "output": "o"}
    >>> next(fitting([(0, Example(record, "t.jsonl:1"))], limit, None)).example.record
    {'instruction': 'i', 'input': 'c d', 'output': 'o'}
    """
    for some in in_groups(_written(numbered, limit, bad), TOGETHER):
        counts = limit.count([text for *_, text in some])
        for (row, example, _), count in zip(some, counts, strict=True):
            fits = example
            if count > limit.tokens:
                fits = _shortened(example, limit) if limit.cut else None
            if fits is not None:
                yield Fitting(fits, cut=fits is not example)
                continue
            error = _too_long(example, count, limit)
            if long is None:
                raise error
            long.add(row, example.place, error, example.record)


def is_within(limit: Limit, example: Example) -> bool:
    """Tell whether an example can be written, and fits a limit as it is.

    Args:
        limit: How long it may be.
        example: The example.

    >>> count = lambda texts: [len(text.text) for text in texts]
    >>> limit = Limit(3, lambda x: Text(x.output), count, False, "--max-length")
    >>> [is_within(limit, Example({"output": x}, "")) for x in ("abc", "abcd")]
    [True, False]
    """
    try:
        text = limit.write(example)
    except RecordError:  # a template can ask for what was cut
        return False
    return limit.count([text])[0] <= limit.tokens


class Cuts(NamedTuple):
    """What is left of an input, or of a list of messages, without its oldest pieces."""

    most: int  # pieces that can be cut
    without: Callable[[int], Any]  # what is left without so many of the oldest pieces


#: Where titles hold what parts titles, nobody knows where the oldest one ends.
UNCERTAIN = Cuts(0, lambda k: "")


def cuts_of(text: str, liked: Any = None, history: Any = None) -> Cuts:
    r"""Find where the input of an Alpaca record can be cut.

    Args:
        text: The input.
        liked: Of click prediction, whether the user liked each title, by age.
        history: The items whose titles the input has, as far as is known.

    >>> cuts_of('"Heat", "Fargo", "Alien"').without(1)
    '"Fargo", "Alien"'
    >>> text = 'Liked: "Heat", "Cube"\nDisliked: "Fargo"\nOne more: "Alien"'
    >>> print(cuts_of(text, [True, False, True]).without(2))
    Liked: "Cube"
    Disliked: none
    One more: "Alien"
    >>> cuts_of('"Heat", "He said "Yes", "No""', history=[7, 3]).most
    0
    """
    return _by_rating(text, liked) or _by_title(text, history) or _by_word(text)


def _written(
    numbered: Iterable[tuple[int, Example]], limit: Limit, bad: Skipped | None
) -> Iterator[tuple[int, Example, Text]]:
    """Write examples; those that cannot be written or scored are left out."""
    if bad is None:
        yield from ((row, example, limit.write(example)) for row, example in numbered)
        return

    def write(row: int, example: Example) -> tuple[int, Example, Text | RecordError]:
        try:
            return row, example, limit.write(example)
        except RecordError as error:
            return row, example, error

    for some in in_groups((write(*each) for each in numbered), TOGETHER):
        good = [(e, text) for _, e, text in some if isinstance(text, Text)]
        wrong = iter(limit.check([e for e, _ in good], [text for _, text in good]))
        for row, example, text in some:
            error = next(wrong) if isinstance(text, Text) else text
            if error:
                bad.add(row, example.place, error, example.record)
            elif isinstance(text, Text):
                yield row, example, text


def _shortened(example: Example, limit: Limit) -> Example | None:
    """Cut as little of an example as is enough; None if all that can be is not."""
    record, keys = example.record, example.keys
    if example.form == "alpaca":
        key = keys.key(record, ALPACA[1])
        known = (record.get(name) for name in ("liked", "history"))
        cuts = cuts_of(record.get(key, ""), *known)
    else:
        turns = turns_of(record, keys)
        key, cuts = turns.key, Cuts(turns.most, turns.without)
    shorter = lambda k: example._replace(record={**record, key: cuts.without(k)})

    fits = lambda k: is_within(limit, shorter(k))
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
        return UNCERTAIN

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


def _by_title(text: str, history: Any) -> Cuts | None:
    titles = _titles(text)
    known = bool(titles) and isinstance(history, list)
    if known and len(titles) != len(history):
        return UNCERTAIN
    if len(titles) < 2 and not known:  # it may be any text in quotation marks
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
        cure = "it is no longer enough to cut its oldest side: shorten it"
    return RecordError(
        f"{example.place} has {count} tokens, more than {limit.flag} of "
        f"{limit.tokens}: {cure}, or leave it out with --bad-rows skip.",
        "too long",
    )
