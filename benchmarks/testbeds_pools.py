"""Five testbeds from MovieLens-100K: pools of which it is known which rows are good.

A testbed asks for a model of one kind of rows. Its pool has such rows and others, and a
perfect chooser takes those that are planted:

    flips           click prediction; 40 % of the pool's answers are the wrong one.
                    Planted: the right answers.
    mixture         click prediction, the next movie, genre and year, a quarter each,
                    under one template. Planted: click prediction.
    shift           click prediction for users who like dramas better than action, about
                    movies that divide them from users who like action better, of whom
                    three quarters of the pool are. Planted: those of the former.
    ctr_no_count    click prediction; 70 % of the pool's ratings are not clear (see
                    below). Planted: those that are.
    seqrec_matched  the next movie, among others that are as popular; three quarters of
                    the pool's answers repeat a movie of the history, as logs do that
                    are late. Planted: the right ones.

A click prediction is made so that trivial numbers know little. Every prompt has two
liked and two disliked movies. The movies that the target asks for occur nowhere in the
pool and in no history, so their popularity and mean rating are not known there. There
are as many Yes as No, in each period of years too. It is also made so that a small
model can learn something from few rows: ratings are clear, which means 5 stars, or at
most 2, on the side that most users are on (in shift, most users of that taste).

The users of the pool are not those of the target and the judge.
"""

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from testbeds_questions import (
    NEUTRAL,
    Asked,
    MovieLens,
    matched_negatives,
)

from goracs_jax.data.splits import Rows
from goracs_jax.llm.prompts import seqrec_record

HISTORY = 3  # movies in a prompt of seqrec_matched
NEGATIVES = 9
#: The rows that all seeds draw from, and how many of them a seed draws.
POOL, HELD = 2800, 1000
DRAWN = {"pool": 1000, "target": 200, "judge": 600}
BUDGET = 200


class Universe(NamedTuple):
    """All rows of a testbed, as Alpaca records; every seed draws some of them."""

    pool: list[dict]
    planted: Bool[np.ndarray, " pool"]  # what a perfect chooser takes
    held: list[dict]


class Drawn(NamedTuple):
    """What a seed draws, as rows of a universe."""

    pool: Rows
    target: Rows  # of held: what a chooser sees
    judge: Rows  # of held, of other users


def flips(ml: MovieLens) -> Universe:
    """Click prediction; 40 % of the pool's answers are flipped, of Yes as of No."""
    rng, asked = np.random.default_rng(1), Asked.of(ml)
    pool = asked.balanced(asked.even(asked.inside & asked.clear, rng), POOL, rng)
    liked = asked.liked[pool]
    planted = np.ones(len(pool), bool)
    for answer in (True, False):
        mine = np.flatnonzero(liked == answer)
        planted[rng.choice(mine, 2 * len(mine) // 5, replace=False)] = False
    return Universe(asked.records(pool, liked == planted), planted, _held(asked, rng))


def mixture(ml: MovieLens) -> Universe:
    """Four kinds of questions whose prompts look the same; click prediction is asked.

    The others are the genre of the movie (the first of them), its year, and the title
    that the user chose after it.
    """
    rng, log = np.random.default_rng(1), ml.log
    asked = Asked.of(ml, NEUTRAL)
    following = log.by_user[np.minimum(log.place + 1, len(log.place) - 1)]
    goes_on = (log.user[following] == log.user)[asked.rows]
    even = asked.even(asked.inside & asked.clear & goes_on, rng)
    pool = asked.balanced(even, POOL, rng)
    kind = np.arange(len(pool)) % 4
    records = asked.records(pool, asked.liked[pool])
    for row, record, k in zip(asked.rows[pool], records, kind.tolist(), strict=True):
        item, later = int(log.item[row]), int(log.item[following[row]])
        answers = {1: ml.genres[item][0], 2: ml.year[item], 3: log.titles[later]}
        record["output"] = answers.get(k, record["output"])
    return Universe(records, kind == 0, _held(asked, rng))


def shift(ml: MovieLens) -> Universe:
    """Click prediction for users of one taste; most of the pool has the opposite one.

    The taste of a user is the mean rating of dramas minus that of action. The target's
    users have more of it than those of 60 % of all rows, the pool's others less than
    those of 60 %. Asked is for movies that divide them: the answer is Yes where the
    user's side rates the movie better than the other side does (and the user gave it 5
    stars), No where it rates it worse (1 or 2 stars).
    """
    rng, asked = np.random.default_rng(1), Asked.of(ml)
    taste = ml.mean_of("Drama") - ml.mean_of("Action")
    low, high = np.quantile(taste[asked.users], (0.4, 0.6))
    better = ml.divided(taste >= high, taste <= low)[ml.log.item[asked.rows]]
    mine, theirs = (mask[asked.users] for mask in (taste >= high, taste <= low))
    sure = asked.sure & np.where(asked.liked == mine, better > 0, better < 0)
    sides = (asked.inside & mine, asked.inside & theirs, asked.outside & mine)
    # As many as there are, of each side, period and answer.
    *parts, held = (
        asked.balanced(asked.even(sure & side, rng), size, rng)
        for side, size in zip(sides, (600, 1800, 940), strict=True)
    )
    pool = rng.permutation(np.concatenate(parts))
    records = (asked.records(rows, asked.liked[rows]) for rows in (pool, held))
    return Universe(next(records), mine[pool], next(records))


def ctr_no_count(ml: MovieLens) -> Universe:
    """Click prediction; most ratings of the pool are not clear."""
    rng, asked = np.random.default_rng(1), Asked.of(ml)
    kinds = (asked.inside & asked.clear, asked.inside & ~asked.clear)
    sizes = (3 * POOL // 10, POOL - 3 * POOL // 10)
    parts = [
        asked.balanced(asked.even(kind, rng), size, rng)
        for kind, size in zip(kinds, sizes, strict=True)
    ]
    pool = rng.permutation(np.concatenate(parts))
    records = asked.records(pool, asked.liked[pool])
    return Universe(records, asked.clear[pool], _held(asked, rng))


def seqrec_matched(ml: MovieLens) -> Universe:
    """The next movie, among others as popular; three quarters of the pool are late.

    Such a row's answer is a movie of its history, which the next one never is. Movies
    have their year and genres beside the title, and follow others like them
    (`MovieLens.following`).
    """
    rng, log = np.random.default_rng(1), ml.log
    rows, histories = ml.following(HISTORY)
    before = dict(zip(rows.tolist(), histories.tolist(), strict=True))
    inside = ml.inside[log.user[rows]]
    pool = rng.choice(rows[inside], POOL, replace=False)
    targets = log.item[pool]
    for late in rng.permutation(POOL)[POOL // 4 :]:
        targets[late] = rng.choice(before[pool[late]])

    def record(row: int, target: int) -> dict:
        past = before[row]
        texts = seqrec_record([ml.described(i) for i in past], ml.described(target))
        ids = {"user": log.user_ids[log.user[row]], "target": log.item_ids[target]}
        return texts | ids | {"history": [log.item_ids[i] for i in past]}

    others = rng.permutation(rows[~inside]).tolist()
    popularity = np.bincount(log.item[rows], minlength=len(log.item_ids))
    drawn = matched_negatives(log, others, popularity, NEGATIVES, rng)
    held = [
        record(row, int(log.item[row]))
        | {"negatives": [log.item_ids[item] for item in items]}
        for row, items in islice(drawn, HELD)
    ]
    made = zip(pool.tolist(), targets.tolist(), strict=True)
    return Universe([record(*pair) for pair in made], targets == log.item[pool], held)


def _held(asked: Asked, rng: np.random.Generator) -> list[dict]:
    even = asked.even(asked.outside & asked.clear, rng)
    rows = asked.balanced(even, HELD, rng)
    return asked.records(rows, asked.liked[rows])


TESTBEDS: dict[str, Callable[[MovieLens], Universe]] = {
    "flips": flips,
    "mixture": mixture,
    "shift": shift,
    "ctr_no_count": ctr_no_count,
    "seqrec_matched": seqrec_matched,
}


def draw(universe: Universe, seed: int) -> Drawn:
    """Draw a pool, a target and a judge; the last two have no user in common.

    Users are taken in random order until they have enough rows for the target; the
    judge's rows are drawn from those of all other users.
    """
    rng = np.random.default_rng(seed)
    names, users = np.unique([r["user"] for r in universe.held], return_inverse=True)
    order = rng.permutation(len(names))
    owned = np.bincount(users)[order]
    first = np.searchsorted(np.cumsum(owned), DRAWN["target"]) + 1
    mine = np.isin(users, order[:first])
    pick = lambda rows, n: np.sort(rng.choice(rows, n, replace=False))
    return Drawn(
        pick(np.arange(len(universe.pool)), DRAWN["pool"]),
        pick(np.flatnonzero(mine), DRAWN["target"]),
        pick(np.flatnonzero(~mine), DRAWN["judge"]),
    )
