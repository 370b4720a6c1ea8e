"""The texts that a language model reads, and which parts of them it is to learn."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

#: The label of a token that is not scored.
NOT_SCORED = -100
#: Why an answer is not found.
WRITES_ANEW = (
    "the chat template writes an answer otherwise once more turns follow: give one "
    "that marks answers ({% generation %}) with --template FILE, or score everything "
    "with --labels all."
)


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


def overlapping(spans: Sequence[tuple[int, int]], answer: Span) -> slice:
    """Find the tokens that have a part of a span of characters, as transformers does.

    Args:
        spans: The characters of each token, in their order.
        answer: The span.

    >>> overlapping([(0, 3), (3, 5), (5, 6), (5, 6), (6, 8)], Span(4, 6))
    slice(1, 4, None)
    """
    end = math.inf if answer.end is None else answer.end
    first = next((i for i, span in enumerate(spans) if span[1] > answer.start), None)
    if first is None:
        return slice(0, 0)
    behind = (i for i in range(first, len(spans)) if spans[i][0] >= end)
    return slice(first, next(behind, len(spans)))


def common(one: Sequence[Any], two: Sequence[Any]) -> int:
    """Count the leading tokens, or characters, that two texts have in common.

    >>> common([5, 6, 7], [5, 6, 8, 9])
    2
    """
    pairs = enumerate(zip(one, two, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(two)))
