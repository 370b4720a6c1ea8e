"""Raw files to one table of interactions with titles, oldest first, and what it lost.

The rules, in this order, each with its count in `Tidy.steps`:

1. Of interactions of a user with an item, the oldest stays; with `repeats`, only those
   at the same time count as one.
2. Items without a title are dropped: a prompt has nothing to call them by. Where a file
   has several titles for an item, the first that is not empty counts.
3. With `rated`, interactions without a rating are dropped.
4. With a core k, users and items with fewer than k interactions are dropped, again and
   again until none is left.

Ties in time are ordered by user, then as in the file.
"""

from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from goracs_jax.data.raw import Reading, read_rows
from goracs_jax.data.sources import Source, to_interaction, to_title
from goracs_jax.errors import InputError

RATINGS = {
    "user": pl.String,
    "item": pl.String,
    "rating": pl.Float64,
    "timestamp": pl.Float64,
}
TITLES = {"item": pl.String, "title": pl.String}
MAX_BAD = 0.01  # share of lines


class Raw(NamedTuple):
    """What the two files held."""

    ratings: Reading
    titles: Reading


class Step(NamedTuple):
    """What was left after a rule, and how many interactions it dropped."""

    step: str
    users: int
    items: int
    interactions: int
    dropped: int


class Tidy(NamedTuple):
    """Columns user, item, title, rating, timestamp, oldest first; and the steps."""

    table: pl.DataFrame
    steps: list[Step]


def read_raw(
    source: Source,
    max_bad: float = MAX_BAD,
    tell: Callable[[float], None] = lambda mib: None,
) -> Raw:
    """Read both files.

    Args:
        source: The files.
        max_bad: Largest share of lines of a file that may be bad.
        tell: Called now and then with the MiB that have been read of both.

    Raises:
        InputError: A file cannot be read or has too many bad lines.
    """
    interaction, title = to_interaction(source), to_title(source)
    kind, first = source.format, source.ratings.stat().st_size / 2**20
    ratings = read_rows(
        source.ratings, kind.ratings, interaction, RATINGS, max_bad=max_bad, tell=tell
    )
    after = lambda mib: tell(first + mib)
    titles = read_rows(
        source.titles, kind.titles, title, TITLES, max_bad=max_bad, tell=after
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
    """Apply the rules that stand at the head of this file.

    Args:
        ratings: Columns user, item, rating, timestamp, as in the file.
        titles: Columns item, title.
        rated: Whether every interaction needs a rating.
        repeats: Whether a user may have an item again at a later time.
        core: k.

    Returns:
        What is left and how it came to be.

    Raises:
        InputError: Nothing is left.

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
    "repeated": "at all: are there lines under the header?",
    "untitled": "that has a title: do both files call the items by the same ids?",
    "unrated": "that has a rating: --task ctr needs ratings; name them with "
    "--rating-column.",
    "core": "with --core: take a smaller one.",
}


def k_core(table: pl.DataFrame, k: int) -> pl.DataFrame:
    """The largest part in which every user and every item has at least k rows.

    >>> table = pl.DataFrame({"user": list("aabbc"), "item": list("xyxyx")})
    >>> k_core(table, 2)["user"].to_list()
    ['a', 'a', 'b', 'b']
    """
    while True:
        left = table.filter((pl.len().over("user") >= k) & (pl.len().over("item") >= k))
        if len(left) == len(table):
            return table
        table = left


def _step(name: str, left: pl.DataFrame, before: pl.DataFrame) -> Step:
    users, items = left["user"].n_unique(), left["item"].n_unique()
    return Step(name, users, items, len(left), len(before) - len(left))
