"""Pools whose outcomes are known: what a training would give is a formula."""

import numpy as np

from goracs_jax.check.design import Sizes
from goracs_jax.check.examine import Features, Planted, examine
from goracs_jax.check.planted import plant
from goracs_jax.cost import make_cost
from goracs_jax.selection.classes import make_classes
from goracs_jax.selection.problem import objective

SIZES = Sizes(
    rows=120, planted=80, repeats=4, pairs=12, quantiles=4, quantile_seeds=2, subsets=40
)
BUDGET = 12


def features(rng, count, classes=None):
    """Three spaces and two rewards, which know nothing of each other."""
    space = lambda: (rng.normal(size=(count, 3)), 0.5 + 0.5 * rng.normal(size=(30, 3)))
    spaces = {"one": space(), "two/whiten": space(), "three/whiten/cosine": space()}
    rewards = {"norm": rng.gamma(3.0, size=count), "alignment": rng.normal(size=count)}
    return Features(spaces, rewards, classes)


def check(seed, worth, *, noise=0.5, classes=False):
    """Examine a pool in which a subset's loss is `worth(pool, rows)`, standardised.

    Args:
        seed: Seed of the pool, of the noise and of the check.
        worth: From the features of the pool and a matrix of subsets' rows to numbers.
        noise: Standard deviation of the noise, where that of worth over random subsets
            is 1.
        classes: Whether there are two classes.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 120), rng.integers(0, 2, 30)
    known = make_classes(*labels, (120, 30)) if classes else None
    pool = features(rng, 120, known)
    some = [rng.choice(120, BUDGET, replace=False) for _ in range(60)]
    of = worth(pool)
    spread = np.std([of(rows) for rows in some])

    def train(run):
        noisy = np.random.default_rng([seed, run.seed]).normal()
        return float(of(run.rows) / spread + noise * noisy)

    outputs, flag = plant([f"title {i}" for i in range(80)], 0.4, seed=seed)
    assert len(outputs) == 80
    planted = Planted(features(rng, 80), flag)
    found = examine(pool, planted, train, SIZES, BUDGET, seed=seed)
    return pool, found


def by_space(name):
    """The loss is POO in a space."""

    def worth(pool):
        cost = make_cost(*pool.spaces[name])
        return lambda rows: objective(cost, rows)

    return worth


def by_reward(name):
    """The loss falls with the mean of a reward."""
    return lambda pool: lambda rows: -pool.rewards[name][rows].mean()


def by_nothing(pool):
    """The loss depends on the rows, and on nothing that is checked."""
    hidden = np.random.default_rng(0).permutation(np.linspace(-1, 1, 120))
    return lambda rows: hidden[rows].mean()
