"""Histories and targets, split by global time or by leaving one out.

An example is the row of its target: every interaction with enough history is one.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from goracs_jax.errors import InputError

Rows = Int[np.ndarray, " rows"]


class Log(NamedTuple):
    """Interactions as numbers, oldest first; ids and titles are sorted by id."""

    user: Int[np.ndarray, " interactions"]
    item: Int[np.ndarray, " interactions"]
    rating: Float[np.ndarray, " interactions"]  # NaN where there is none
    timestamp: Float[np.ndarray, " interactions"]
    user_ids: list[str]
    item_ids: list[str]
    titles: list[str]
    by_user: Int[np.ndarray, " interactions"]  # rows, a user after the other
    place: Int[np.ndarray, " interactions"]  # of each row in by_user
    before: Int[np.ndarray, " interactions"]  # earlier rows of the same user

    def history(self, row: int, length: int) -> Rows:
        """The latest earlier rows of the row's user, oldest first."""
        place = self.place[row]
        return self.by_user[place - min(length, self.before[row]) : place]


class Split(NamedTuple):
    """Rows of targets, oldest first."""

    train: Rows
    valid: Rows
    test: Rows


def make_log(table: pl.DataFrame) -> Log:
    """Number users and items, and find each user's rows.

    Args:
        table: Columns user, item, title, rating, timestamp, oldest first.

    >>> table = pl.DataFrame({"user": list("uvu"), "item": list("bba"),
    ...     "title": list("BBA"), "rating": [4.0] * 3, "timestamp": [1.0, 2.0, 3.0]})
    >>> log = make_log(table)
    >>> log.item.tolist(), log.history(2, 10).tolist()
    ([1, 1, 0], [0])
    """
    items = table.select("item", "title").unique("item").sort("item")
    user_ids = table["user"].unique().sort()
    numbered = lambda name, ids: (
        table[name].cast(pl.Enum(ids)).to_physical().to_numpy().astype(np.int64)
    )
    user = numbered("user", user_ids)
    by_user = np.argsort(user, kind="stable")
    place = np.empty_like(by_user)
    place[by_user] = np.arange(len(by_user))
    starts = np.searchsorted(user[by_user], np.arange(len(user_ids)))
    return Log(
        user=user,
        item=numbered("item", items["item"]),
        rating=table["rating"].cast(pl.Float64).fill_null(np.nan).to_numpy(),
        timestamp=table["timestamp"].cast(pl.Float64).to_numpy(),
        user_ids=user_ids.to_list(),
        item_ids=items["item"].to_list(),
        titles=items["title"].to_list(),
        by_user=by_user,
        place=place,
        before=place - starts[user],
    )


def check_size(name: str, size: int | float) -> None:
    """Refuse what is neither a count nor a share.

    >>> check_size("test", 1.5)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: --test must be a whole number from 1, or a share ...
    """
    if not (0 < size < 1 or (size >= 1 and float(size).is_integer())):
        raise InputError(
            f"--{name} must be a whole number from 1, or a share between 0 and 1, got "
            f"{size}."
        )


def split_by_time(
    log: Log, *, valid: int | float, test: int | float, min_history: int = 3
) -> Split:
    """The newest examples test, those before them validate, the rest trains.

    No target of an earlier part is younger than one of a later part.

    Args:
        log: The interactions.
        valid: Number of validation examples, or, below 1, their share.
        test: Likewise for the test examples.
        min_history: Fewest earlier interactions that make an example.

    Raises:
        InputError: Nothing is left to train on.

    >>> table = pl.DataFrame({"user": ["u"] * 5, "item": list("abcde"),
    ...     "title": list("ABCDE"), "rating": [4.0] * 5, "timestamp": [*range(5)]})
    >>> split_by_time(make_log(table), valid=1, test=0.25, min_history=1)
    Split(train=array([1, 2]), valid=array([3]), test=array([4]))
    """
    rows = _with_history(log, min_history)
    n_valid, n_test = _size(valid, len(rows)), _size(test, len(rows))
    if n_valid + n_test >= len(rows):
        raise InputError(
            f"{n_valid} validation and {n_test} test examples leave none to train on: "
            f"there are {len(rows)} with a history of {min_history}; hold out fewer."
        )
    first_test = len(rows) - n_test
    return Split(*np.split(rows, [first_test - n_valid, first_test]))


def leave_one_out(log: Log, *, min_history: int = 3) -> Split:
    """Each user's newest example tests, the one before validates, the rest trains.

    Users with fewer than three examples are trained on alone.

    Args:
        log: The interactions.
        min_history: Fewest earlier interactions that make an example.

    Raises:
        InputError: No user has three examples.
    """
    rows = _with_history(log, min_history)
    sizes = np.bincount(log.user)[log.user[rows]]
    newer = sizes - 1 - log.before[rows]  # examples of the user that are newer
    trains = (newer >= 2) | (sizes - min_history < 3)
    split = Split(
        rows[trains], rows[~trains & (newer == 1)], rows[~trains & (newer == 0)]
    )
    if not len(split.test):
        raise InputError(
            f"no user has three examples with a history of {min_history}: take a "
            "smaller --min-history, or --split global."
        )
    return split


def _with_history(log: Log, min_history: int) -> Rows:
    return np.flatnonzero(log.before >= min_history)


def _size(size: int | float, n: int) -> int:
    """A count as it is; a share of n, rounded."""
    return int(size) if size >= 1 else max(1, round(size * n))
