"""Clean raw interactions: one table with titles, oldest first, and the dropped counts.

The cleaning rules are applied in this order; `Tidy.steps` counts what each one drops:

1. If a user interacted with an item several times, only the oldest interaction stays.
   With `repeats`, only interactions at the same time are merged.
2. Items without a title are dropped, because a prompt could not name them. If a file
   has several titles for an item, the first that is not empty counts.
3. With `rated`, interactions without a rating are dropped.
4. With a core k above 1, users and items with fewer than k interactions are dropped,
   repeatedly, until every user and every item has at least k.

Interactions at the same time are ordered by user, then as in the file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from goracs_jax.choices import MAX_BAD, Order
from goracs_jax.data.raw import Reading, read_rows
from goracs_jax.data.raw_files import RawFiles
from goracs_jax.data.raw_rows import to_interactions, to_titles
from goracs_jax.errors import InputError
from goracs_jax.inputs.parts import files_of, mib_of
from goracs_jax.inputs.records import How, look_at

RATINGS = {
    "user": pl.String,
    "item": pl.String,
    "rating": pl.Float64,
    "timestamp": pl.Float64,
}
TITLES = {"item": pl.String, "title": pl.String}


class Raw(NamedTuple):
    """The rows of the file of interactions and of the file of titles."""

    ratings: Reading
    titles: Reading


class CleaningStep(NamedTuple):
    """The counts that are left after one cleaning rule, and what the rule dropped."""

    step: str
    users: int
    items: int
    interactions: int
    dropped: int


class Tidy(NamedTuple):
    """The cleaned interactions and the counts of every cleaning step."""

    table: pl.DataFrame  # columns user, item, title, rating, timestamp; oldest first
    steps: list[CleaningStep]


def read_raw(
    files: RawFiles,
    max_bad: float = MAX_BAD,
    tell: Callable[[float], None] = lambda mib: None,
) -> Raw:
    """Read the file of interactions and the file of titles.

    Args:
        files: The two files and their format.
        max_bad: Largest share of the lines of a file that may be bad.
        tell: Called now and then with the MiB read so far, of both files together.

    Returns:
        The rows of both files, in the order of the files.

    Raises:
        InputError: A file cannot be read or has too many bad lines.
    """
    first = mib_of(files.ratings)
    how_ratings, how_titles = files.how

    def read(path: Path, how: How, before: float, *rows: Any) -> Reading:
        # Without a word of the user, a file that is not UTF-8 is not guessed at.
        known = files.encoding is not None or not _is_separated(path, how)
        after = lambda mib: tell(before + mib)
        return read_rows(
            path, how, *rows, max_bad=max_bad, any_encoding=known, tell=after
        )

    ratings = read(files.ratings, how_ratings, 0.0, to_interactions(files), RATINGS)
    return Raw(ratings, read(files.titles, how_titles, first, to_titles(files), TITLES))


def in_order(ratings: pl.DataFrame, order: Order, seed: int) -> pl.DataFrame:
    """Give interactions without times the places that order them, from 0.

    Args:
        ratings: The rows, in the order of the file.
        order: "time" leaves the times, "file" takes the rows' numbers, and "random"
            draws the places.
        seed: Seed of what is drawn.

    >>> rows = pl.DataFrame({"user": ["u", "v"], "timestamp": [None, None]})
    >>> in_order(rows, "file", 0)["timestamp"].to_list()
    [0.0, 1.0]
    """
    if order == "time":
        return ratings
    places = np.arange(len(ratings), dtype=np.float64)
    if order == "random":
        np.random.default_rng(seed).shuffle(places)
    return ratings.with_columns(pl.Series("timestamp", places))


def _is_separated(path: Path, how: How) -> bool:
    return look_at(files_of(path)[0], how).kind == "separated"


def tidy(
    ratings: pl.DataFrame,
    titles: pl.DataFrame,
    *,
    rated: bool = False,
    repeats: bool = False,
    core: int = 1,
) -> Tidy:
    """Apply the cleaning rules listed in the docstring of this module.

    Args:
        ratings: Table with columns user, item, rating, timestamp, in the file's order.
        titles: Table with columns item, title.
        rated: Whether every interaction needs a rating.
        repeats: Whether to keep later interactions of a user with the same item.
        core: Fewest interactions k of every user and every item.

    Returns:
        The interactions that are left, and the counts after each rule.

    Raises:
        InputError: No interaction is left.

    >>> ratings = pl.DataFrame({"user": ["u", "u", "v"], "item": ["b", "a", "c"],
    ...     "rating": [4.0, 5.0, 1.0], "timestamp": [3.0, 2.0, 1.0]})
    >>> titles = pl.DataFrame({"item": ["a", "b"], "title": ["Alien", "Brazil"]})
    >>> tidied = tidy(ratings, titles)
    >>> tidied.table["title"].to_list(), tidied.steps[-1].dropped
    (['Alien', 'Brazil'], 1)
    """
    titles = titles.drop_nulls("title").unique("item", keep="first")
    table = ratings.sort("timestamp", "user", maintain_order=True)
    steps = [_step("read", table, table)]

    def then(step: str, left: pl.DataFrame, more: str = "") -> None:
        nonlocal table
        steps.append(_step(step, left, table))
        if not len(left):
            raise InputError(f"no interaction is left {REASONS[step]}{more}")
        table = left

    same = ["user", "item", "timestamp"] if repeats else ["user", "item"]
    then("repeated", table.unique(same, keep="first", maintain_order=True))
    ids = " and ".join(str(side["item"].head(2).to_list()) for side in (table, titles))
    titled = table.join(titles, on="item", maintain_order="left")
    then("untitled", titled, f" The first ids are {ids}.")
    if rated:
        then("unrated", table.drop_nulls("rating"))
    if core > 1:
        then("core", k_core(table, core))
    return Tidy(table.select("user", "item", "title", "rating", "timestamp"), steps)


REASONS = {
    "repeated": "at all: check that the file has lines below its header.",
    "untitled": "that has a title: check that both files use the same item ids, or "
    "name their fields with --item-column and --metadata-item-column.",
    "unrated": "that has a rating: --task ctr needs ratings; name them with "
    "--rating-column, or take --task seqrec.",
    "core": "with --core: take a smaller one.",
}


def k_core(table: pl.DataFrame, k: int) -> pl.DataFrame:
    """Return the largest part in which every user and every item has at least k rows.

    Args:
        table: Table with the columns user and item, and any others.
        k: Fewest rows of a user and of an item.

    Returns:
        The rows that are left, in their order; there may be none.

    >>> table = pl.DataFrame({"user": list("aabbc"), "item": list("xyxyx")})
    >>> k_core(table, 2)["user"].to_list()
    ['a', 'a', 'b', 'b']
    """
    while True:
        left = table.filter((pl.len().over("user") >= k) & (pl.len().over("item") >= k))
        if len(left) == len(table):
            return table
        table = left


def _step(name: str, left: pl.DataFrame, before: pl.DataFrame) -> CleaningStep:
    users, items = left["user"].n_unique(), left["item"].n_unique()
    return CleaningStep(name, users, items, len(left), len(before) - len(left))
