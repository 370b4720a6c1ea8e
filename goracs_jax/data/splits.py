"""Histories and targets, split by global time."""

from collections import defaultdict
from typing import NamedTuple

import polars as pl

from goracs_jax.errors import InputError
from goracs_jax.prompts import seqrec_record


class Splits(NamedTuple):
    """Records in the order of their targets' time."""

    train: list[dict]
    valid: list[dict]
    test: list[dict]


def seqrec_splits(
    interactions: pl.DataFrame,
    *,
    n_valid: int,
    n_test: int,
    history: int = 10,
    min_history: int = 3,
) -> Splits:
    """One example for each interaction that has a history; the newest are held out.

    Args:
        interactions: Columns user, title, timestamp, oldest first.
        n_valid: Examples before the test examples that validate.
        n_test: The newest examples.
        history: Most titles in a history, the latest ones.
        min_history: Fewest titles in a history.

    Returns:
        Train, validation and test records; no target of an earlier part is younger than
        one of a later part.

    Raises:
        InputError: The held-out examples leave none to train on.

    >>> table = pl.DataFrame({"user": ["u"] * 4, "title": list("abcd"),
    ...                       "timestamp": [1.0, 2.0, 3.0, 4.0]})
    >>> splits = seqrec_splits(table, n_valid=1, n_test=1, history=2, min_history=1)
    >>> [len(part) for part in splits], splits.test[0]["input"]
    ([1, 1, 1], '"b", "c"')
    """
    seen: dict[str, list[str]] = defaultdict(list)
    records = []
    for user, title in interactions.select("user", "title").iter_rows():
        past = seen[user]
        if len(past) >= min_history:
            records.append(seqrec_record(past[-history:], title) | {"user": user})
        past.append(title)
    if n_valid + n_test >= len(records):
        raise InputError(
            f"{n_valid} validation and {n_test} test examples leave none to train on: "
            f"there are {len(records)} with a history of {min_history}; hold out fewer."
        )
    test = len(records) - n_test
    valid = test - n_valid
    return Splits(records[:valid], records[valid:test], records[test:])
