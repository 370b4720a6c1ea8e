"""The trainings of a check: which rows of the pool, under which seed, and why.

Each training is a function of its name and of the seed of the check, so that a check
with other sizes finds those that it has in common with an earlier one.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from goracs_jax.files import digest
from goracs_jax.selection.classes import Classes, class_budgets

Part = Literal["repeats", "subsets", "again", "quantiles"]

#: Tilted subsets draw rows by the weight exp(t z), with t up to this size and z the
#: normal score of a row's nearness or reward: from far too near to far too far.
LARGEST_TILT = 2.0


class Sizes(NamedTuple):
    """How much is done: the numbers of rows and of trainings."""

    rows: int  # of the pool
    planted: int  # of these, with a planted mistake or beside one
    repeats: int  # trainings of one subset
    pairs: int  # subsets that are trained twice
    quantiles: int  # of distance, in each space
    quantile_seeds: int  # trainings of each quantile
    subsets: int  # whose outcomes are correlated with scores

    def trainings(self, spaces: int) -> int:
        """Count the trainings, with this many spaces.

        >>> Sizes(4000, 1000, 8, 8, 5, 2, 60).trainings(spaces=3)
        106
        """
        of_quantiles = spaces * self.quantiles * self.quantile_seeds
        return self.repeats + self.pairs + of_quantiles + self.subsets


class Run(NamedTuple):
    """One training: its part of the check, its place in it, its rows and its seed."""

    part: Part
    place: int  # the number of the subset or of the quantile
    rows: Int[np.ndarray, " budget"]
    seed: int
    by: str | None = None  # the space or reward that decided which rows are likely
    tilt: float = 0.0

    def __str__(self) -> str:
        """Return the run as messages name it."""
        names: dict[Part, str] = {
            "repeats": "one subset, seed",
            "subsets": "subset",
            "again": "second seed of subset",
            "quantiles": "quantile",
        }
        of = f" of {self.by}" if self.part == "quantiles" else ""
        return f"{names[self.part]} {self.place + 1}{of}"


class Designed(NamedTuple):
    """All trainings, in the order in which they are asked for."""

    first: list[Run]  # for the reliability
    rest: list[Run]  # once the outcome is known to be reliable


def design(
    nearness: Mapping[str, Float[np.ndarray, " train"]],
    rewards: Mapping[str, Float[np.ndarray, " train"]],
    classes: Classes | None,
    sizes: Sizes,
    budget: int,
    *,
    seed: int,
) -> Designed:
    """Draw the rows of all trainings, inside every class where there are classes.

    Of the subsets that are correlated with scores the even ones are random. The odd
    ones are tilted by each space and reward in turn: random ones are too much alike for
    a correlation to show. The first of them are those that are trained twice.

    Args:
        nearness: Minus the distance of each row to the target, by space.
        rewards: The reward of each row, by name.
        classes: The classes of the rows and of the target.
        sizes: How much is done.
        budget: Rows of a subset, n.
        seed: Seed of the check.
    """
    draw = _Draw(classes, len(next(iter(nearness.values()))), budget)
    scores = {**nearness, **rewards}
    tilts = {name: draw.normal_scores(score) for name, score in scores.items()}
    repeated = draw.rows(_rng(seed, "repeated"))
    repeats = [
        Run("repeats", i, repeated, _seed(seed, "repeats", i))
        for i in range(sizes.repeats)
    ]
    subsets = []
    for i in range(sizes.subsets):
        rng, by, tilt = _rng(seed, "subset", i), None, 0.0
        if i % 2:
            by = list(tilts)[i // 2 % len(tilts)]
            tilt = float(rng.uniform(-LARGEST_TILT, LARGEST_TILT))
        rows = draw.rows(rng, tilt * tilts[by] if by else None)
        subsets.append(Run("subsets", i, rows, _seed(seed, "subsets", i), by, tilt))
    again = [
        run._replace(part="again", seed=_seed(seed, "again", run.place))
        for run in subsets[: sizes.pairs]
    ]
    quantiles = []
    for name, near in nearness.items():
        at = draw.quantile(-near, sizes.quantiles)
        for k in range(sizes.quantile_seeds):
            for q in range(sizes.quantiles):
                named = (seed, "quantile", name, sizes.quantiles, q, k)
                rows = draw.rows(_rng(*named), among=at == q, share=sizes.quantiles)
                quantiles.append(Run("quantiles", q, rows, _seed(*named), name))
    first = [*repeats, *subsets[: sizes.pairs], *again]
    return Designed(first, [*quantiles, *subsets[sizes.pairs :]])


class _Draw(NamedTuple):
    """Draws rows without replacement, each class its share of the budget."""

    classes: Classes | None
    n_train: int
    budget: int

    @property
    def groups(self) -> list[tuple[Int[np.ndarray, " rows"], int]]:
        """The rows of each class, and how many of them are drawn."""
        if (classes := self.classes) is None:
            return [(np.arange(self.n_train), self.budget)]
        sizes = class_budgets(classes, self.budget).tolist()
        of = lambda c: np.flatnonzero(classes.train == c)
        return [(of(c), n) for c, n in enumerate(sizes) if n]

    def rows(
        self,
        rng: np.random.Generator,
        log_weights: Float[np.ndarray, " train"] | None = None,
        among: Bool[np.ndarray, " train"] | None = None,
        share: int = 1,
    ) -> Int[np.ndarray, " budget"]:
        """Draw rows by their weights; fewer where a part of a class has fewer.

        The largest sums of log weight and Gumbel noise are such a draw.
        """
        keys = rng.gumbel(size=self.n_train)
        keys += 0 if log_weights is None else log_weights
        found = []
        for rows, n in self.groups:
            n = min(n, len(rows) // share)
            some = rows if among is None else rows[among[rows]]
            found.append(some[np.argsort(-keys[some], kind="stable")[:n]])
        return np.sort(np.concatenate(found))

    def normal_scores(
        self, score: Float[np.ndarray, " train"]
    ) -> Float[np.ndarray, " train"]:
        """Return the normal quantile of each row's rank in its class."""
        out = np.zeros(self.n_train)
        for rows, _ in self.groups:
            ranks = stats.rankdata(score[rows])
            out[rows] = stats.norm.ppf((ranks - 0.5) / len(rows))
        return out

    def quantile(
        self, distance: Float[np.ndarray, " train"], count: int
    ) -> Int[np.ndarray, " train"]:
        """Return the quantile of each row in its class, 0 for the nearest."""
        out = np.full(self.n_train, -1)
        for rows, _ in self.groups:
            order = np.argsort(distance[rows], kind="stable")
            out[rows[order]] = np.arange(len(rows)) * count // len(rows)
        return out


def _seed(*name: object) -> int:
    """Return a seed that the name decides, in [0, 2**32 - 1]."""
    return int(digest(list(name))[:8], 16)


def _rng(*name: object) -> np.random.Generator:
    return np.random.default_rng(_seed("rows", *name))
