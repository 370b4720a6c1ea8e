"""Copies of validation and test examples in a pool: counted, and refused or dropped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from goracs_jax.choices import Leakage
from goracs_jax.data.chats import ALPACA
from goracs_jax.data.leakage import Copies
from goracs_jax.errors import InputError
from goracs_jax.runs.kept import Kept
from goracs_jax.runs.opened import Pool
from goracs_jax.runs.say import say
from goracs_jax.settings.common import Leaks

#: Rows of an array that are looked at together.
ROWS = 4096


class Leaked(NamedTuple):
    """How many training examples copy an example of each other set."""

    counts: dict[str, int]  # by the name of the set
    of: int  # training examples
    action: Leakage
    near: float | None = None  # the similarity of near copies, if they are counted
    dropped: int = 0

    @property
    def text(self) -> str:
        """What was found, in a line."""
        more = "" if self.near is None else f", or are {self.near:g} alike"
        found = (
            f"{count:,} of {self.of:,} training examples equal a {name} example{more}"
            for name, count in self.counts.items()
        )
        line = f"leakage: {'; '.join(found)}"
        if self.dropped:
            return f"{line}; {self.dropped:,} are dropped"
        if any(self.counts.values()):
            return f"{line}; transport rewards copies: --leakage drop leaves them out"
        return line


class Watch:
    """Looks at training examples one by one, and counts copies of others.

    Args:
        known: The texts of the examples of each other set, by its name.
        flags: What counts as a copy, and what is done with one.
    """

    def __init__(
        self, known: Mapping[str, Iterable[Sequence[str]]], flags: Leaks
    ) -> None:
        self._flags = flags
        self._known = {n: Copies(x, flags.near_copies) for n, x in known.items()}
        self._counts = dict.fromkeys(known, 0)
        self._seen = self._dropped = 0

    def passes(self, texts: Sequence[str], place: str) -> bool:
        """Count an example, and tell whether it stays in the pool.

        Args:
            texts: Its instruction, input and output.
            place: Where it is, for a message.

        Raises:
            InputError: It is a copy, and copies are refused.
        """
        self._seen += 1
        copied = False
        for name, copies in self._known.items():
            if (row := copies.match(texts)) is None:
                continue
            if self._flags.leakage == "refuse":
                raise InputError(
                    f"{place} is a copy of {name} example {row + 1}: remove it, or "
                    "pass --leakage drop or keep."
                )
            self._counts[name] += 1
            copied = True
        dropped = copied and self._flags.leakage == "drop"
        self._dropped += dropped
        return not dropped

    def passing(self, made: Iterable[dict]) -> Iterator[dict]:
        """Yield records of training examples, without those that are dropped.

        Raises:
            InputError: As `passes`.
        """
        for record in made:
            place = f"the example of user {record['user']}, target {record['target']},"
            if self.passes(texts_of(record), place):
                yield record

    @property
    def found(self) -> Leaked:
        """What was counted."""
        s = self._flags
        return Leaked(self._counts, self._seen, s.leakage, s.near_copies, self._dropped)


def texts_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the instruction, the input and the output of a record.

    >>> texts_of({"instruction": "Add.", "input": "1 2", "output": "3", "id": 4})
    ('Add.', '1 2', '3')
    """
    return tuple(record[key] for key in ALPACA)


def rows_to_keep(
    train: Pool, others: Mapping[str, Pool], flags: Leaks
) -> tuple[Kept, Leaked]:
    """Count the copies in a pool, say so, and find the rows that stay.

    Args:
        train: The training examples.
        others: Those that validate or test, by their name in messages.
        flags: What counts as a copy, and what is done with one.

    Raises:
        InputError: There is a copy and copies are refused, or nothing else is left.
    """
    texts = lambda pool: (example.texts for example in pool.examples)
    watch = Watch({name: texts(pool) for name, pool in others.items()}, flags)
    stay = [watch.passes(x.texts, x.place) for x in train.examples]
    return _told(np.array(stay), watch.found)


def equal_rows(
    train: np.ndarray, valid: np.ndarray, flags: Leaks
) -> tuple[Kept, Leaked]:
    """Count training rows that equal a validation row, say so, and find what stays.

    Args:
        train: Training embeddings.
        valid: Validation embeddings.
        flags: What is done with a copy.

    Raises:
        InputError: As `rows_to_keep`, or near copies are asked for.
    """
    if flags.near_copies is not None:
        raise InputError("--near-copies is for texts: leave it out beside embeddings.")
    known = set(_bytes_of(valid, train.dtype))
    copied = np.array([row in known for row in _bytes_of(train, valid.dtype)])
    first = int(copied.argmax())
    if flags.leakage == "refuse" and copied[first]:
        raise InputError(
            f"training row {first} equals a validation row: remove it, or pass "
            "--leakage drop or keep."
        )
    dropped = copied if flags.leakage == "drop" else np.zeros_like(copied)
    count, gone = int(copied.sum()), int(dropped.sum())
    found = Leaked({"validation": count}, len(train), flags.leakage, None, gone)
    return _told(~dropped, found)


def _told(stay: Bool[np.ndarray, " train"], found: Leaked) -> tuple[Kept, Leaked]:
    say(found.text)
    if not stay.any():
        raise InputError(
            "all training examples are copies: give others, or --leakage keep."
        )
    return Kept.where(stay), found


def _bytes_of(rows: np.ndarray, other: np.dtype) -> Iterator[bytes]:
    """Yield the bytes of each row, as numbers of a type that holds those of both."""
    kind = np.promote_types(rows.dtype, other)
    for start in range(0, len(rows), ROWS):
        # Adding 0 turns -0 into 0.
        block = np.ascontiguousarray(rows[start : start + ROWS], kind) + kind.type(0)
        yield from (row.tobytes() for row in block)
