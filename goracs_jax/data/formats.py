"""The raw formats: how their files are laid out and what their fields are called."""

from typing import NamedTuple

from goracs_jax.data.raw import (
    Layout,
    decode_csv,
    decode_json,
    decode_literal,
)


class Columns(NamedTuple):
    """The names of the fields in a file."""

    user: str
    item: str
    rating: str
    time: str
    title: str


class Format(NamedTuple):
    """How the file of interactions and the file of titles of one format are read."""

    ratings: Layout
    titles: Layout
    columns: Columns
    noun: str  # the word for an item in prompts
    file: str = ""  # pattern of the file name of the interactions, if it is fixed
    beside: str = ""  # name of the titles' file in that folder, or its .suffix
    marks: frozenset[str] = frozenset()  # fields that only this format has together
    per_second: float = 1.0  # the timestamp's units per second
    escaped: bool = False  # whether titles contain HTML entities


NAMED = Columns("user", "item", "rating", "timestamp", "title")
PLAIN = Columns("user_id", "item_id", "rating", "timestamp", "title")
JSON = Layout(decode_json)
CSV = Layout(decode_csv, header=decode_csv)
TABS = lambda line: line.split("\t")


def _without_types(line: str) -> list[str]:
    """Return the column names of a RecBole header: `user_id:token` names user_id."""
    return [name.split(":")[0] for name in line.split("\t")]


ATOMIC = Layout(TABS, header=_without_types)
AMAZON = Columns("reviewerID", "asin", "overall", "unixReviewTime", "title")

FORMATS: dict[str, Format] = {
    "movielens-100k": Format(
        Layout(TABS, names=NAMED[:4], encoding="latin-1"),
        Layout(lambda s: s.split("|"), names=("item", "title"), encoding="latin-1"),
        NAMED,
        noun="movie",
        file="u.data",
        beside="u.item",
        marks=frozenset(NAMED[:4]),
    ),
    "movielens-1m": Format(
        Layout(lambda s: s.split("::"), names=NAMED[:4], encoding="latin-1"),
        Layout(lambda s: s.split("::"), names=("item", "title"), encoding="latin-1"),
        NAMED,
        noun="movie",
        file="ratings.dat",
        beside="movies.dat",
        marks=frozenset(NAMED[:4]),
    ),
    "movielens-csv": Format(
        CSV,
        CSV,
        Columns("userId", "movieId", "rating", "timestamp", "title"),
        noun="movie",
        file="ratings.csv",
        beside="movies.csv",
        marks=frozenset({"userId", "movieId"}),
    ),
    "amazon-2014": Format(
        JSON,
        Layout(decode_literal),
        AMAZON,
        noun="product",
        marks=frozenset({"reviewerID", "asin", "helpful"}),
        escaped=True,
    ),
    "amazon-2018": Format(
        JSON,
        JSON,
        AMAZON,
        noun="product",
        marks=frozenset({"reviewerID", "asin", "verified"}),
        escaped=True,
    ),
    "amazon-2023": Format(
        JSON,
        JSON,
        Columns("user_id", "parent_asin", "rating", "timestamp", "title"),
        noun="product",
        marks=frozenset({"user_id", "parent_asin", "rating"}),
        per_second=1000.0,
        escaped=True,
    ),
    "recbole": Format(
        ATOMIC,
        ATOMIC,
        PLAIN,
        noun="item",
        file="*.inter",
        beside=".item",
        marks=frozenset({"user_id", "item_id"}),
    ),
    "csv": Format(CSV, CSV, PLAIN, noun="item"),
    "jsonl": Format(JSON, JSON, PLAIN, noun="item"),
}
