"""From trials to the entries of a table: over seeds, by lambda, and in pairs."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from goracs_jax.choices import BASELINE
from goracs_jax.comparison.design import FULL, Trial
from goracs_jax.comparison.intervals import (
    Interval,
    holm,
    interval,
    seeds_p,
    two_sided_p,
)
from goracs_jax.evaluate.metrics import Units as Units

#: Costs that several trials share: several lambdas pay them once.
SHARED = ("embeddings", "gradients")


class Outcome(NamedTuple):
    """The results of one trial, and its costs by stage."""

    values: Mapping[str, Float[np.ndarray, " examples"]]  # their means are the metrics
    valid_loss: float  # of the model that is kept
    seconds: Mapping[str, float]
    flops: Mapping[str, float]


class Entry(NamedTuple):
    """The outcomes, by seed, of a method with a budget and, for some, a lambda."""

    method: str
    lambda_: float | None
    budget: int
    outcomes: Mapping[int, Outcome]
    #: Where there are several lambdas: "fixed" for the entry of each of them, and "by
    #: validation" for the one that competes.
    choice: str | None = None

    @property
    def name(self) -> str:
        """The method and its lambda.

        >>> Entry("goracs", 0.1, 8, {}, "by validation").name
        'goracs, lambda by validation'
        """
        if self.lambda_ is None:
            return self.method
        by = self.choice == "by validation"
        return f"{self.method}, lambda {self.choice if by else f'{self.lambda_:g}'}"

    def values(self, metric: str) -> Float[np.ndarray, "seeds examples"]:
        """Return v_se, with the seeds in ascending order."""
        return np.stack(
            [self.outcomes[s].values[metric] for s in sorted(self.outcomes)]
        )

    def mean_cost(self, kind: str) -> dict[str, float]:
        """Return the mean over the seeds of each stage's seconds or flops."""
        costs = [getattr(outcome, kind) for outcome in self.outcomes.values()]
        return {stage: float(np.mean([c[stage] for c in costs])) for stage in costs[0]}

    @property
    def valid_loss(self) -> float:
        """The mean over the seeds of the validation loss."""
        return float(np.mean([o.valid_loss for o in self.outcomes.values()]))


class Pair(NamedTuple):
    """The paired difference of two entries of a budget on a metric."""

    budget: int
    first: str
    second: str
    metric: str
    seeds: tuple[int, ...]  # that both have
    difference: Interval  # the first minus the second
    seeds_p: float | None  # P of the paired t test across seeds alone
    p: float | None  # by users and seeds, as the interval; None where there is one seed
    #: p corrected for the number of methods that are compared with random, for the
    #: pairs of a budget and metric that are such comparisons.
    holm_p: float | None = None


def entries_of(outcomes: Mapping[Trial, Outcome]) -> list[Entry]:
    """Group trials by method, lambda and budget, and let validation choose a lambda.

    Where a method and budget has several lambdas, the one whose models have the lowest
    mean validation loss gets an entry of its own, over the seeds that all of them have.
    That entry costs what all of them cost, since they were all trained to find it.

    >>> some = lambda loss: Outcome({}, loss, {"training": 1.0}, {"training": 2.0})
    >>> losses = {0.0: 3.0, 0.1: 2.0}
    >>> found = {Trial("goracs", w, 8, 0): some(loss) for w, loss in losses.items()}
    >>> _, fixed, chosen = entries_of(found)
    >>> fixed.name, fixed.mean_cost("flops")
    ('goracs, lambda 0.1', {'training': 2.0})
    >>> chosen.name, chosen.mean_cost("flops")
    ('goracs, lambda by validation', {'training': 4.0})
    """
    table: dict[tuple[int, str], dict[float | None, dict[int, Outcome]]] = {}
    for trial, outcome in outcomes.items():
        by_lambda = table.setdefault((trial.budget, trial.method), {})
        by_lambda.setdefault(trial.lambda_, {})[trial.seed] = outcome
    entries = []
    for (budget, method), by_lambda in table.items():
        several = "fixed" if len(by_lambda) > 1 else None
        mine = [Entry(method, w, budget, o, several) for w, o in by_lambda.items()]
        entries += [*mine, *_by_validation(mine)] if several else mine
    first_full = lambda entry: (entry.method != FULL, entry.budget)
    return sorted(entries, key=first_full)


def _by_validation(entries: Sequence[Entry]) -> list[Entry]:
    """Make the entry of the chosen lambda; none where no seed is common to all."""
    seeds = sorted(set.intersection(*(set(entry.outcomes) for entry in entries)))
    if not seeds:
        return []
    entries = [e._replace(outcomes={s: e.outcomes[s] for s in seeds}) for e in entries]
    best = min(entries, key=lambda entry: entry.valid_loss)

    def total(seed: int, kind: str) -> dict[str, float]:
        costs = [getattr(entry.outcomes[seed], kind) for entry in entries]
        stages = dict.fromkeys(stage for cost in costs for stage in cost)
        return {
            s: (max if s in SHARED else sum)(cost.get(s, 0.0) for cost in costs)
            for s in stages
        }

    paid = {
        seed: outcome._replace(
            seconds=total(seed, "seconds"), flops=total(seed, "flops")
        )
        for seed, outcome in best.outcomes.items()
    }
    return [best._replace(outcomes=paid, choice="by validation")]


def contenders(entries: Sequence[Entry]) -> list[Entry]:
    """Keep one entry per method and budget: a fixed lambda among several is out."""
    return [entry for entry in entries if entry.choice != "fixed"]


def pairs_of(entries: Sequence[Entry], units: Units) -> list[Pair]:
    """Compare every two contenders of a budget, and each with `full`, on all metrics.

    Args:
        entries: The entries of the table, as `entries_of` makes them.
        units: The user of each test example.

    Returns:
        Paired differences over the seeds that both have.
    """
    pairs = []
    for one, two in combinations(contenders(entries), 2):
        seeds = tuple(sorted(one.outcomes.keys() & two.outcomes.keys()))
        alike = one.budget == two.budget or FULL in (one.method, two.method)
        if not alike or not seeds:
            continue
        mine, theirs = (
            e._replace(outcomes={s: e.outcomes[s] for s in seeds}) for e in (one, two)
        )
        for metric in one.outcomes[seeds[0]].values:
            apart = mine.values(metric) - theirs.values(metric)
            budget = min(one.budget, two.budget)
            names = (budget, one.name, two.name, metric, seeds)
            known = seeds_p(apart.mean(axis=1)), two_sided_p(apart, units)
            pairs.append(Pair(*names, interval(apart, units), *known))
    return _corrected(pairs)


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Correct p of each comparison with random; `full` does not compete."""
    found = list(pairs)
    families: dict[tuple[int, str], list[int]] = {}
    for i, pair in enumerate(pairs):
        sides = {pair.first, pair.second}
        if BASELINE in sides and FULL not in sides and pair.p is not None:
            families.setdefault((pair.budget, pair.metric), []).append(i)
    for family in families.values():
        values = [p for i in family if (p := pairs[i].p) is not None]
        for i, p in zip(family, holm(values), strict=True):
            found[i] = pairs[i]._replace(holm_p=p)
    return found


def winners(entries: Sequence[Entry], pairs: Sequence[Pair]) -> set[tuple]:
    """Find each (budget, name, metric) in which one entry beats all of its budget.

    It beats another where the interval of the paired difference, over at least two
    seeds, lies above zero. A test of several conditions that must all hold needs no
    correction for their number. `full` does not compete, because it has no budget.
    """
    found = set()
    for entry in contenders(entries):
        rivals = {
            other.name
            for other in contenders(entries)
            if other.budget == entry.budget and FULL not in (other.method, entry.method)
        } - {entry.name}
        for metric in next(iter(entry.outcomes.values())).values:
            beaten = set()
            for pair in pairs:
                if (pair.budget, pair.metric) == (entry.budget, metric):
                    if pair.first == entry.name and pair.difference.excludes_zero(1):
                        beaten.add(pair.second)
                    if pair.second == entry.name and pair.difference.excludes_zero(-1):
                        beaten.add(pair.first)
            if rivals and rivals <= beaten:
                found.add((entry.budget, entry.name, metric))
    return found
