"""MovieLens-100K as the testbeds see it: questions about movies, and their answers."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from goracs_jax.data.demo import fetch
from goracs_jax.data.interactions import read_raw, tidy
from goracs_jax.data.raw_files import find_raw_files
from goracs_jax.data.splits import Log, Rows, make_log
from goracs_jax.llm.prompts import Template, ctr_record

SHOWN = 2  # liked movies in a prompt, and as many disliked
#: Years in which a period starts, each with many ratings.
PERIODS = (1970, 1980, 1986, 1990, *range(1992, 1998))
# Short, because the cost of a training goes with its tokens.
CLICK = Template(
    instruction="Will the user like the {noun}? Answer Yes or No.",
    input="Liked: {liked}\nDisliked: {disliked}\nAsked: {target}",
    output="{answer}",
)
NEUTRAL = replace(CLICK, instruction="Answer about the user and the {noun}.")

Mask = Bool[np.ndarray, " rows"]


class MovieLens(NamedTuple):
    """The ratings, what is known of each movie, and who and what pools are made of."""

    log: Log
    year: Sequence[str]  # by item
    genres: Sequence[Sequence[str]]
    warm: Bool[np.ndarray, " items"]  # may be in pools and in histories
    inside: Bool[np.ndarray, " users"]  # have rows in pools; others are held

    @property
    def known(self) -> Bool[np.ndarray, " items"]:
        """Whether a movie has a year and genres."""
        each = zip(self.year, self.genres, strict=True)
        return np.array([year.isdigit() and bool(genres) for year, genres in each])

    def described(self, item: int) -> str:
        """Return a movie's title with its year and genres."""
        about = ", ".join([self.year[item], *self.genres[item]])
        return f"{self.log.titles[item]} ({about})"

    def following(self, size: int) -> tuple[Rows, Int[np.ndarray, "rows size"]]:
        """Find the rows whose movie is like the last ones of the user, and these.

        It is at most three years from their median year, and has a genre of theirs.
        """
        log, known = self.log, self.known
        rows = np.flatnonzero(log.before >= size)
        past = np.stack([log.item[log.history(row, size)] for row in rows.tolist()])
        item = log.item[rows]
        years = np.array([int(y) if y.isdigit() else 0 for y in self.year])
        names = sorted({name for each in self.genres for name in each})
        genres = np.array([[name in each for name in names] for each in self.genres])
        near = np.abs(years[item] - np.median(years[past], axis=1)) <= 3
        near &= (genres[item] & genres[past].any(axis=1)).any(axis=1)
        near &= known[item] & known[past].all(axis=1)
        return rows[near], past[near]

    def mean_of(self, genre: str) -> Float[np.ndarray, " users"]:
        """Return each user's mean rating of a genre, with five of everyone's added."""
        log = self.log
        mask = np.array([genre in each for each in self.genres])[log.item]
        user, rating = log.user[mask], log.rating[mask]
        users, added = len(log.user_ids), 5
        total = np.bincount(user, rating, users) + added * rating.mean()
        return total / (np.bincount(user, minlength=users) + added)

    def divided(
        self, some: Bool[np.ndarray, " users"], others: Bool[np.ndarray, " users"]
    ) -> Float[np.ndarray, " items"]:
        """Return how much better some users rate each movie than others do.

        It is relative to the median movie, and NaN where either side has rated a movie
        fewer than five times.
        """
        log, items = self.log, len(self.log.item_ids)
        means = []
        for mask in (some[log.user], others[log.user]):
            times = np.bincount(log.item[mask], minlength=items)
            total = np.bincount(log.item[mask], log.rating[mask], items)
            means.append(np.where(times < 5, np.nan, total / np.maximum(times, 1)))
        difference = means[0] - means[1]
        return difference - np.nanmedian(difference)


@cache
def movielens() -> MovieLens:
    """Read the ratings, and draw 60 % of the users and of the movies for pools."""
    files = fetch()
    raw = read_raw(find_raw_files("recbole", files.interactions, files.items))
    log = make_log(tidy(raw.ratings.rows, raw.titles.rows, rated=True).table)
    # Quotation marks belong to titles: the file is no CSV that quotes its fields.
    table = pl.read_csv(
        files.items, separator="\t", quote_char=None, infer_schema=False
    ).fill_null("")
    of = {item: (year, genres.split()) for item, _, year, genres in table.iter_rows()}
    year, genres = zip(*(of[item] for item in log.item_ids), strict=True)
    rng = np.random.default_rng(0)
    warm = rng.random(len(log.item_ids)) < 0.6
    return MovieLens(log, year, genres, warm, rng.random(len(log.user_ids)) < 0.6)


class Asked(NamedTuple):
    """Interactions that a click prediction can ask for, with their histories."""

    ml: MovieLens
    rows: Rows  # of the log
    histories: Int[np.ndarray, "rows shown"]  # likewise, oldest first
    template: Template

    @classmethod
    def of(cls, ml: MovieLens, template: Template = CLICK) -> "Asked":
        """Find the rows before which a user liked and disliked enough warm movies."""
        log, found = ml.log, {}
        recent: dict[int, tuple[deque, deque]] = defaultdict(
            lambda: (deque(maxlen=SHOWN), deque(maxlen=SHOWN))
        )
        likes, warm = (log.rating > 3).tolist(), ml.warm[log.item].tolist()
        for row, user in enumerate(log.user.tolist()):
            mine = recent[user]
            if min(map(len, mine)) == SHOWN:
                found[row] = sorted([*mine[0], *mine[1]])
            if warm[row]:
                mine[likes[row]].append(row)
        rows = np.array(list(found))
        good = ml.known[log.item[rows]]
        return cls(ml, rows[good], np.array(list(found.values()))[good], template)

    @property
    def liked(self) -> Mask:
        """Whether the answer is Yes."""
        return self.ml.log.rating[self.rows] > 3

    @property
    def sure(self) -> Mask:
        """Whether the user is sure: 5 stars, or at most 2."""
        rating = self.ml.log.rating[self.rows]
        return (rating == 5) | (rating <= 2)

    @property
    def clear(self) -> Mask:
        """Whether the user is sure, and most others agree.

        These are 5 stars for a movie whose mean is above 3.5, and 1 or 2 stars for one
        below 3.3, of at least ten ratings.
        """
        log = self.ml.log
        times = np.bincount(log.item)
        mean = (np.bincount(log.item, log.rating) / times)[log.item[self.rows]]
        agreed = np.where(self.liked, mean > 3.5, mean < 3.3)
        return self.sure & agreed & (times[log.item[self.rows]] >= 10)

    @property
    def year(self) -> Int[np.ndarray, " rows"]:
        """The year of the row's movie."""
        return np.array(self.ml.year)[self.ml.log.item[self.rows]].astype(int)

    @property
    def users(self) -> Int[np.ndarray, " rows"]:
        """The user of each row."""
        return self.ml.log.user[self.rows]

    @property
    def warm(self) -> Mask:
        """Whether pools may ask for the row's movie."""
        return self.ml.warm[self.ml.log.item[self.rows]]

    @property
    def inside(self) -> Mask:
        """Whether a row can be in the pool."""
        return self.warm & self.ml.inside[self.users]

    @property
    def outside(self) -> Mask:
        """Whether a row can be held: of another user, about another movie."""
        return ~self.warm & ~self.ml.inside[self.users]

    def even(self, mask: Mask, rng: np.random.Generator) -> Mask:
        """Leave out rows of a mask at random: in each period as many Yes as No stay."""
        kept = np.zeros(len(mask), bool)
        period = np.digitize(self.year, PERIODS)
        for number in range(len(PERIODS) + 1):
            here = mask & (period == number)
            sides = [
                np.flatnonzero(here & (self.liked == yes)) for yes in (True, False)
            ]
            for side in sides:
                kept[rng.permutation(side)[: min(map(len, sides))]] = True
        return kept

    def balanced(self, mask: Mask, size: int, rng: np.random.Generator) -> Rows:
        """Draw as many rows of Yes as of No among those of a mask, in random order."""
        halves = [
            rng.choice(np.flatnonzero(mask & (self.liked == answer)), size // 2, False)
            for answer in (True, False)
        ]
        return rng.permutation(np.concatenate(halves))

    def records(self, rows: Rows, answers: Mask) -> list[dict]:
        """Make the records of some rows with these answers."""
        made, log = [], self.ml.log
        for row, answer in zip(rows.tolist(), answers.tolist(), strict=True):
            past, asked = self.histories[row], self.rows[row]
            items, liked = log.item[past].tolist(), (log.rating[past] > 3).tolist()
            titles = [log.titles[item] for item in items]
            item, user = int(log.item[asked]), log.user_ids[log.user[asked]]
            target = (self.ml.described(item), answer)
            history = list(zip(titles, liked, strict=True))
            texts = ctr_record(history, target, template=self.template)
            ids = {"user": user, "target": log.item_ids[item], "liked": liked}
            made.append(texts | ids | {"history": [log.item_ids[i] for i in items]})
        return made


def matched_negatives(
    log: Log,
    rows: Iterable[int],
    popularity: Int[np.ndarray, " items"],
    n: int,
    rng: np.random.Generator,
) -> Iterator[tuple[int, list[int]]]:
    """Draw n unseen movies for each row that are next to its own in popularity.

    They and the target follow each other in the order of popularity of the movies that
    the user has not seen, and the place of the target among them is uniform: popularity
    finds it no sooner than chance does. Rows that have fewer than n such movies above
    or below them are left out.

    Yields:
        A row, and the movies.
    """
    order = np.lexsort((rng.random(len(popularity)), popularity))
    place = np.argsort(order)
    for row in rows:
        unseen = np.ones(len(order), bool)
        unseen[log.item[log.user == log.user[row]]] = False
        others = order[unseen[order]]
        below = int(np.searchsorted(place[others], place[log.item[row]]))
        if n <= below <= len(others) - n:
            start = below - rng.integers(n + 1)
            yield row, others[start : start + n].tolist()
