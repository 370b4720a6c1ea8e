"""What each arm of a testbed chooses: rows of the pool that a seed has drawn."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int
from testbeds_features import embed, gradients
from testbeds_pools import BUDGET, Drawn, Universe

import goracs_jax as gx
from goracs_jax.comparison.design import Arm
from goracs_jax.selection.classes import class_budgets, make_classes
from goracs_jax.selection.method import find_method, needs_of
from goracs_jax.spaces import Reward, Space

ORACLE, RANDOM = "oracle", "random"
#: Sources that are made where they are missing.
MADE = {"text": embed, "gradient": gradients}
Rows = Int[np.ndarray, " budget"]


class Choice(NamedTuple):
    """What a choice depends on beside its arm and seed."""

    universe: Universe
    drawn: Drawn
    features: Path  # the folder of SOURCE.npz
    lambda_: float

    def rows(self, arm: str, seed: int) -> Rows:
        """Choose rows, as numbers of the universe's pool."""
        pool, target = self.drawn.pool, self.drawn.target
        mine = np.array([self.universe.pool[row]["output"] for row in pool])
        theirs = np.array([self.universe.held[row]["output"] for row in target])
        if arm in (RANDOM, ORACLE):
            order = np.random.default_rng(seed).permutation(len(pool))
            if arm == ORACLE:
                order = order[self.universe.planted[pool[order]]]
                order = _in_classes(order, mine, theirs)
            return np.sort(pool[order[:BUDGET]])
        named = Arm.parse(arm)
        method = find_method(named.method)
        space = Space.named(named.space or getattr(method, "space", "text"))
        reward = Reward.named(named.reward or getattr(method, "reward", "grad-norm"))
        classes = {"train_labels": mine, "valid_labels": theirs}
        labels = classes if named.by_label else {}
        given: dict[str, Any] = dict(labels)
        if self.lambda_ and reward.kind == "alignment":
            both = self._sides("gradient")
            given["rewards"] = gx.alignment(*both, **labels, drop=reward.drop)
        weight = self.lambda_ if reward.kind == "grad-norm" else 0.0
        if "grad_norms" in needs_of(method, weight):
            given["grad_norms"] = self._read("gradient")["norms"][pool]
        given |= {"lambda_": self.lambda_, "key": jax.random.key(seed)}
        x, y = space.of([self._sides(source.name) for source in space.parts])
        return pool[gx.goracs(x, y, budget=BUDGET, method=method, **given).indices]

    def _sides(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        arrays = self._read(source)
        return arrays["train"][self.drawn.pool], arrays["valid"][self.drawn.target]

    def _read(self, source: str) -> Mapping[str, np.ndarray]:
        path = self.features / f"{source}.npz"
        if not path.exists() and source in MADE:
            MADE[source](self.universe, self.features)
        return _load(path)


@cache
def _load(path: Path) -> Mapping[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _in_classes(order: np.ndarray, mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Take the first rows of each class, in proportion to its rows in the target."""
    classes = make_classes(mine[order], theirs, (len(order), len(theirs)))
    shares = class_budgets(classes, BUDGET).tolist()
    parts = [order[classes.train == c][:n] for c, n in enumerate(shares)]
    return np.concatenate(parts)
