"""The four parts of a check in their order, from arrays and a way to train."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from goracs_jax.check.agreement import Agreement, agreements
from goracs_jax.check.design import Run, Sizes, design
from goracs_jax.check.planted import Found, found_by, neighbour_distances
from goracs_jax.check.reliability import LEAST_ICC, Reliability, reliability
from goracs_jax.check.trend import Trend, trend
from goracs_jax.check.verdict import Verdict, judge
from goracs_jax.choices import Scale
from goracs_jax.cost import make_cost
from goracs_jax.selection.by_class import class_table
from goracs_jax.selection.classes import Classes
from goracs_jax.selection.problem import objective

Pair = tuple[Float[np.ndarray, "rows dim"], Float[np.ndarray, "target dim"]]


class Features(NamedTuple):
    """Rows and target in every space, the rewards of the rows, and the classes."""

    spaces: Mapping[str, Pair]
    rewards: Mapping[str, Float[np.ndarray, " rows"]]
    classes: Classes | None
    scale: Scale = "max"

    def distances(self) -> dict[str, Float[np.ndarray, " rows"]]:
        """Return how far each row is from the target, by space."""
        return {
            name: neighbour_distances(x, y, self.classes)
            for name, (x, y) in self.spaces.items()
        }


class Planted(NamedTuple):
    """Rows of which some have a planted mistake, and which ones."""

    features: Features
    flag: Bool[np.ndarray, " rows"]


class Examined(NamedTuple):
    """What a check found; None or empty where it did not come so far."""

    planted: dict[str, dict[str, Found]]  # of "spaces" and "rewards", by name
    reliability: Reliability
    trends: dict[str, Trend]  # by space
    agreements: dict[str, dict[str, Agreement]]  # as `planted`
    scores: dict[str, dict[str, list[float]]]  # of the subsets, likewise
    verdict: Verdict | None  # None where outcomes are not reliable
    runs: list[tuple[Run, float]]


def examine(
    pool: Features,
    planted: Planted,
    train: Callable[[Run], float],
    sizes: Sizes,
    budget: int,
    *,
    seed: int,
) -> Examined:
    """Run the parts in their order, and stop where outcomes are mere noise.

    Args:
        pool: What is known of the pool.
        planted: What is known of rows with planted mistakes.
        train: Trains on the rows of a run, with its seed; returns the loss.
        sizes: How much is done.
        budget: Rows of a subset, n.
        seed: Seed of all that is drawn.
    """
    found = find_planted(planted)
    distances = pool.distances()
    nearness = {name: -far for name, far in distances.items()}
    runs = design(nearness, pool.rewards, pool.classes, sizes, budget, seed=seed)
    done = [(run, train(run)) for run in runs.first]
    known = _reliability(done)
    if known.icc < LEAST_ICC:
        return Examined(found, known, {}, {}, {}, None, done)
    done += [(run, train(run)) for run in runs.rest]
    subsets = sorted(_of("subsets", done), key=lambda pair: pair[0].place)
    outcomes = np.array([loss for _, loss in subsets])
    scores = scores_of(pool, [run for run, _ in subsets])
    agreeing = {
        kind: agreements(named, outcomes, known, seed=seed)
        for kind, named in scores.items()
    }
    return Examined(
        planted=found,
        reliability=known,
        trends=_trends(done, seed),
        agreements=agreeing,
        scores={
            kind: {name: score.tolist() for name, score in named.items()}
            for kind, named in scores.items()
        },
        verdict=judge(agreeing["spaces"], agreeing["rewards"]),
        runs=done,
    )


def find_planted(planted: Planted) -> dict[str, dict[str, Found]]:
    """Ask every space and reward for the rows with a mistake: far, or of small reward.

    Args:
        planted: The rows.
    """
    (features, flag), find = planted, found_by
    far, rewards = features.distances(), features.rewards
    return {
        "spaces": {name: find(flag, distance) for name, distance in far.items()},
        "rewards": {name: find(flag, -reward) for name, reward in rewards.items()},
    }


def scores_of(
    pool: Features, runs: Sequence[Run]
) -> dict[str, dict[str, Float[np.ndarray, " subsets"]]]:
    """Score subsets by what is claimed of them: high scores, high losses.

    Args:
        pool: What is known of the pool.
        runs: The subsets.

    Returns:
        POO of each subset in every space, with lambda 0 (inside the classes: the sum
        over them, weighed by their shares of the target); and minus the mean of every
        reward, divided by its largest size.
    """
    spaces = {}
    for name, pair in pool.spaces.items():
        cost = make_cost(*pair, scale=pool.scale)
        if pool.classes is None:
            poo = [objective(cost, run.rows) for run in runs]
        else:
            tables = [class_table(cost, pool.classes, run.rows) for run in runs]
            poo = [
                sum(row.valid * row.objective for row in table if row.budget)
                / sum(row.valid for row in table if row.budget)
                for table in tables
            ]
        spaces[name] = np.array(poo)
    rewards = {
        name: np.array([-reward[run.rows].mean() for run in runs])
        / np.abs(reward).max()
        for name, reward in pool.rewards.items()
    }
    return {"spaces": spaces, "rewards": rewards}


def _of(part: str, done: Sequence[tuple[Run, float]]) -> list[tuple[Run, float]]:
    return [pair for pair in done if pair[0].part == part]


def _reliability(done: Sequence[tuple[Run, float]]) -> Reliability:
    losses = lambda part: np.array([loss for _, loss in _of(part, done)])
    pairs = np.stack([losses("subsets"), losses("again")], axis=1)
    return reliability(pairs, losses("repeats"))


def _trends(done: Sequence[tuple[Run, float]], seed: int) -> dict[str, Trend]:
    by_space: dict[str, list[tuple[Run, float]]] = {}
    for run, loss in _of("quantiles", done):
        by_space.setdefault(str(run.by), []).append((run, loss))
    return {
        name: trend(
            np.array([run.place for run, _ in pairs]),
            np.array([loss for _, loss in pairs]),
            seed=seed,
        )
        for name, pairs in by_space.items()
    }
