"""Split examples into training, validation and test, by time or by leaving one out.

An example is an interaction (its target) with the user's earlier interactions (its
history). It is identified by the row of its target in the log of interactions. Every
interaction with a long enough history is an example.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from goracs_jax.errors import InputError

Rows = Int[np.ndarray, " rows"]


class Log(NamedTuple):
    """The interactions as arrays, oldest first, and the sorted ids they refer to.

    `user` and `item` are positions in `user_ids` and `item_ids`; `titles` are in the
    order of `item_ids`.
    """

    user: Int[np.ndarray, " interactions"]
    item: Int[np.ndarray, " interactions"]
    rating: Float[np.ndarray, " interactions"]  # NaN where there is none
    timestamp: Float[np.ndarray, " interactions"]  # seconds
    user_ids: list[str]
    item_ids: list[str]
    titles: list[str]
    by_user: Int[np.ndarray, " interactions"]  # rows sorted by user, then by time
    place: Int[np.ndarray, " interactions"]  # each row's position in by_user
    before: Int[np.ndarray, " interactions"]  # number of earlier rows of the same user

    def history(self, row: int, length: int) -> Rows:
        """Return the latest earlier rows of the row's user, at most `length`."""
        place = self.place[row]
        return self.by_user[place - min(length, self.before[row]) : place]


class Split(NamedTuple):
    """The examples of each part, as rows of the log, oldest first."""

    train: Rows
    valid: Rows
    test: Rows


def make_log(table: pl.DataFrame) -> Log:
    """Number the users and items of a table, and find each user's rows.

    Args:
        table: Table with columns user, item, title, rating, timestamp, oldest first.

    Returns:
        The interactions as arrays, in the table's order.

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
    """Check that the size of a part is a count or a share.

    Args:
        name: The flag's name, for the message.
        size: A whole number from 1, or a share between 0 and 1.

    Raises:
        InputError: The size is neither.

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
    """Split by time: the newest examples test, those before validate, the rest train.

    No training target is newer than a validation target, and no validation target is
    newer than a test target.

    Args:
        log: The interactions.
        valid: Number of validation examples; a value below 1 is their share.
        test: Number of test examples; a value below 1 is their share.
        min_history: Fewest earlier interactions of an example.

    Returns:
        The three parts.

    Raises:
        InputError: No example is left for training.

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
            f"there are {len(rows)} with a history of {min_history}; "
            "hold out fewer with --valid and --test."
        )
    first_test = len(rows) - n_test
    return Split(*np.split(rows, [first_test - n_valid, first_test]))


def leave_one_out(log: Log, *, min_history: int = 3) -> Split:
    """Leave one out: each user's newest example tests, the one before validates.

    All other examples train. Users with fewer than three examples have only training
    examples.

    Args:
        log: The interactions.
        min_history: Fewest earlier interactions of an example.

    Returns:
        The three parts.

    Raises:
        InputError: No user has three examples.
    """
    rows = _with_history(log, min_history)
    sizes = np.bincount(log.user)[log.user[rows]]
    newer = sizes - 1 - log.before[rows]  # number of newer examples of the same user
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


def training_rows(log: Log, split: Split) -> Rows:
    """Return the interactions that training may know: all but what is held out.

    Of a split by time, interactions that are newer than the oldest held-out target are
    left out, too.

    Args:
        log: The interactions.
        split: The examples of each part.

    Returns:
        Rows of the log, those that are too early to be examples among them.

    >>> table = pl.DataFrame({"user": ["u"] * 5, "item": list("abcde"),
    ...     "title": list("ABCDE"), "rating": [4.0] * 5, "timestamp": [*range(5)]})
    >>> log = make_log(table)
    >>> training_rows(log, leave_one_out(log, min_history=1)).tolist()
    [0, 1, 2]
    """
    held_out = np.concatenate([split.valid, split.test])
    if len(split.train) and split.train.max() < held_out.min():
        return np.arange(held_out.min())
    return np.setdiff1d(np.arange(len(log.user)), held_out)


def _with_history(log: Log, min_history: int) -> Rows:
    return np.flatnonzero(log.before >= min_history)


def _size(size: int | float, n: int) -> int:
    """Return a count as it is, and a share as that share of n, rounded, at least 1."""
    return int(size) if size >= 1 else max(1, round(size * n))
