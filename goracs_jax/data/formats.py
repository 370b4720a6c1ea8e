"""The raw formats: how their files are laid out and what their fields are called.

The container is no part of a format: whether a file is JSON, CSV, Parquet or packed
follows from its content.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from goracs_jax.inputs.parsed import Fields
from goracs_jax.inputs.separated import Style


class Columns(NamedTuple):
    """The names of the fields in a file."""

    user: str
    item: str
    rating: str
    time: str
    title: str
    metadata_item: str = ""  # of items in the file of titles; empty if as above


class Bare(NamedTuple):
    """Separated interactions that are published without a header line."""

    names: tuple[str, ...]
    file: str = ""  # pattern of the names of such files, if they tell the format


class Format(NamedTuple):
    """How the file of interactions and the file of titles of one format are read."""

    columns: Columns
    noun: str  # the word for an item in prompts
    file: str = ""  # pattern of the file name of the interactions, if it is fixed
    beside: str = ""  # name of the titles' file in that folder, or its .suffix
    marks: frozenset[str] = frozenset()  # fields that only this format has together
    ratings: Style = Style()  # of separated interactions that have no header
    titles: Style = Style()  # likewise
    bare: Bare = Bare(())
    latin: bool = False  # whether what is not UTF-8 is Latin-1, by the format's README
    others: Mapping[str, tuple[str, ...]] = {}  # other names of fields, by attribute
    per_second: float = 1.0  # the timestamp's units per second
    dates: str = ""  # how dates are written, if not as ISO 8601
    escaped: bool = False  # whether titles contain HTML
    unrated: float | None = None  # the rating that stands for none
    expand: Callable[[Fields], Iterator[Fields]] | None = None  # a line to interactions
    foreign: tuple[frozenset[str], str] = (frozenset(), "")  # fields of files to refuse


NAMED = Columns("user", "item", "rating", "timestamp", "title")
PLAIN = Columns("user_id", "item_id", "rating", "timestamp", "title")
AMAZON = Columns("reviewerID", "asin", "overall", "unixReviewTime", "title")


def _clicks(fields: Fields) -> Iterator[Fields]:
    """Make interactions of a line of MIND: what was clicked before, and then now.

    All get the time of the line: of earlier clicks the order is known alone.
    """
    shown = (one.rpartition("-") for one in fields["item"].split())
    now = [item for item, _, clicked in shown if clicked == "1"]
    for item in [*fields["history"].split(), *now]:
        yield {"user": fields["user"], "item": item, "timestamp": fields["timestamp"]}


FORMATS: dict[str, Format] = {
    "movielens-100k": Format(
        NAMED,
        noun="movie",
        file="u.data",
        beside="u.item",
        marks=frozenset(NAMED[:4]),
        ratings=Style("\t", NAMED[:4], quoted=False),
        titles=Style("|", ("item", "title"), quoted=False),
        latin=True,
    ),
    "movielens-1m": Format(  # and 10M
        NAMED,
        noun="movie",
        file="ratings.dat",
        beside="movies.dat",
        marks=frozenset(NAMED[:4]),
        ratings=Style("::", NAMED[:4], quoted=False),
        titles=Style("::", ("item", "title"), quoted=False),
        latin=True,
    ),
    "movielens-csv": Format(  # 20M, 25M, 32M and "latest"
        Columns("userId", "movieId", "rating", "timestamp", "title"),
        noun="movie",
        file="ratings.csv",
        beside="movies.csv",
        marks=frozenset({"userId", "movieId"}),
        bare=Bare(("userId", "movieId", "rating", "timestamp")),
    ),
    "amazon-2014": Format(
        AMAZON,
        noun="product",
        marks=frozenset({"reviewerID", "asin", "helpful"}),
        bare=Bare(AMAZON[:4], "ratings_*.csv"),
        escaped=True,
    ),
    "amazon-2018": Format(
        AMAZON,
        noun="product",
        marks=frozenset({"reviewerID", "asin", "verified"}),
        bare=Bare(("asin", "reviewerID", "overall", "unixReviewTime")),
        escaped=True,
    ),
    "amazon-2023": Format(
        Columns("user_id", "parent_asin", "rating", "timestamp", "title"),
        noun="product",
        marks=frozenset({"user_id", "parent_asin", "rating"}),
        bare=Bare(("user_id", "parent_asin", "rating", "timestamp")),
        per_second=1000.0,
        escaped=True,
    ),
    "steam": Format(
        Columns("username", "product_id", "rating", "date", "title", "id"),
        noun="game",
        marks=frozenset({"username", "product_id"}),
        others={"title": ("app_name",)},
    ),
    "goodreads": Format(
        Columns("user_id", "book_id", "rating", "date_added", "title"),
        noun="book",
        marks=frozenset({"user_id", "book_id", "date_added"}),
        dates="%a %b %d %H:%M:%S %z %Y",
        unrated=0.0,
        foreign=(
            frozenset({"book_id", "is_read", "is_reviewed"}),
            "its book_id are not those of the titles, and it has no times: give the "
            "interactions as JSON, goodreads_interactions_*.json.gz",
        ),
    ),
    "mind": Format(
        NAMED,
        noun="news article",
        file="behaviors.tsv",
        beside="news.tsv",
        marks=frozenset({"history", "item"}),
        ratings=Style(
            "\t", ("id", "user", "timestamp", "history", "item"), quoted=False
        ),
        titles=Style("\t", ("item", "category", "subcategory", "title"), quoted=False),
        dates="%m/%d/%Y %I:%M:%S %p",
        expand=_clicks,
    ),
    "kuairec": Format(
        Columns("user_id", "video_id", "watch_ratio", "timestamp", "caption"),
        noun="video",
        file="*_matrix.csv",
        beside="kuairec_caption_category.csv",
        marks=frozenset({"user_id", "video_id", "watch_ratio"}),
    ),
    "yelp": Format(
        Columns("user_id", "business_id", "stars", "date", "name"),
        noun="place",
        marks=frozenset({"user_id", "business_id", "stars"}),
    ),
    "recbole": Format(
        PLAIN,
        noun="item",
        file="*.inter",
        beside=".item",
        marks=frozenset({"user_id"}),
        others={
            "item": (
                "product_id",
                "business_id",
                "book_id",
                "movie_id",
                "video_id",
                "artist_id",
                "tracks_id",
                "venue_id",
                "news_id",
                "recipe_id",
                "anime_id",
            ),
            "rating": ("stars", "score", "label", "weight"),
            "time": ("date",),
            "title": ("name", "app_name"),
        },
    ),
    "csv": Format(PLAIN, noun="item"),
    "jsonl": Format(PLAIN, noun="item"),
    "parquet": Format(PLAIN, noun="item"),
}
