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
from typing import NamedTuple

import polars as pl

from goracs_jax.choices import MAX_BAD
from goracs_jax.data.raw import Reading, read_rows
from goracs_jax.data.raw_files import RawFiles, to_interaction, to_title
from goracs_jax.errors import InputError

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
    interaction, title = to_interaction(files), to_title(files)
    kind, first = files.format, files.ratings.stat().st_size / 2**20
    ratings = read_rows(
        files.ratings, kind.ratings, interaction, RATINGS, max_bad=max_bad, tell=tell
    )
    after = lambda mib: tell(first + mib)
    titles = read_rows(
        files.titles, kind.titles, title, TITLES, max_bad=max_bad, tell=after
    )
    return Raw(ratings, titles)


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
    table = ratings.sort("timestamp", "user", maintain_order=True)
    steps = [_step("read", table, table)]

    def then(step: str, left: pl.DataFrame) -> None:
        nonlocal table
        steps.append(_step(step, left, table))
        if not len(left):
            raise InputError(f"no interaction is left {REASONS[step]}")
        table = left

    same = ["user", "item", "timestamp"] if repeats else ["user", "item"]
    then("repeated", table.unique(same, keep="first", maintain_order=True))
    titles = titles.drop_nulls("title").unique("item", keep="first")
    then("untitled", table.join(titles, on="item", maintain_order="left"))
    if rated:
        then("unrated", table.drop_nulls("rating"))
    if core > 1:
        then("core", k_core(table, core))
    return Tidy(table.select("user", "item", "title", "rating", "timestamp"), steps)


REASONS = {
    "repeated": "at all: check that the file has lines below its header.",
    "untitled": "that has a title: check that both files use the same item ids.",
    "unrated": "that has a rating: --task ctr needs ratings; name them with "
    "--rating-column.",
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
