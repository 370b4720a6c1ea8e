"""The texts that a language model reads, and which parts of them it is to learn."""

from collections.abc import Sequence
from typing import NamedTuple

#: The label of a token that is not scored.
NOT_SCORED = -100


class Span(NamedTuple):
    """The characters of an answer: from `start` to `end`, or to the end of all."""

    start: int
    end: int | None = None


class Between(NamedTuple):
    """An answer by its neighbours: the text in front of it, and the text up to its end.

    Its tokens are those behind what `before` has in common with the whole, up to what
    `upto` has in common with it, or up to the end. A tokenizer can join characters
    across the border, so tokens are compared, not characters.
    """

    before: str
    upto: str | None = None


class Text(NamedTuple):
    """A text, its answers, and what the tokenizer puts around it.

    >>> Text.of("1 + 1 = ", "2").answers
    (Span(start=8, end=None),)
    """

    text: str
    answers: tuple[Span | Between, ...] = ()
    special: bool = True  # whether the tokenizer adds the tokens that it puts around
    ended: bool = True  # whether the end of text follows, and is scored

    @classmethod
    def of(cls, prompt: str, answer: str) -> "Text":
        """Make the text of a prompt and its answer."""
        return cls(prompt + answer, (Span(len(prompt)),))


def first_scored(spans: Sequence[tuple[int, int]], answer: Span) -> slice:
    """Find the tokens of a span of characters, as transformers does.

    A character of several tokens counts as its first, and so does one at the end of
    the span; a span that goes to the end of all has all tokens that end in it.

    Args:
        spans: The characters of each token.
        answer: The span.

    Returns:
        The tokens; none if no token has the first character.

    >>> first_scored([(0, 3), (3, 5), (5, 6), (5, 6)], Span(4, 6))
    slice(1, 3, None)
    """
    if answer.end is None:
        inside = (i for i, (_, end) in enumerate(spans) if end > answer.start)
        return slice(next(inside, len(spans)), len(spans))
    start = _token_of(spans, answer.start)
    if start is None:
        return slice(0, 0)
    end = _token_of(spans, answer.end - 1)
    return slice(start, end + 1 if end else len(spans))


def common(one: Sequence[int], two: Sequence[int]) -> int:
    """Count the leading tokens that two texts have in common.

    >>> common([5, 6, 7], [5, 6, 8, 9])
    2
    """
    pairs = enumerate(zip(one, two, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(two)))


def _token_of(spans: Sequence[tuple[int, int]], character: int) -> int | None:
    found = (i for i, (start, end) in enumerate(spans) if start <= character < end)
    return next(found, None)
