"""Random instances of the selection problem."""

from typing import NamedTuple

import numpy as np

from goracs_jax.cost import Cost, make_cost
from goracs_jax.selection.method import METHODS
from goracs_jax.selection.problem import Problem


class Instance(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    g: np.ndarray
    errors: np.ndarray
    rewards: np.ndarray
    lambda_: float

    @property
    def cost(self) -> Cost:
        return make_cost(self.x, self.y, self.g, self.lambda_)

    @property
    def problem(self) -> Problem:
        return ranked(self.cost, self.g, self.errors, self.rewards)

    def scores_for(self, method: str) -> dict[str, np.ndarray]:
        """Every kind of score for a front door, where either norms or rewards weigh."""
        by_rewards = "rewards" in METHODS[method].needs
        weighed = "rewards" if by_rewards else "grad_norms"
        return {weighed: self.g, "errors": self.errors}


def ranked(cost: Cost, g, errors, rewards) -> Problem:
    """The problem with scores of every kind."""
    return Problem(cost, grad_norms=g, prediction_errors=errors, rewards=rewards)


def instance(
    n_train: int, n_valid: int, *, seed: int, lambda_: float = 0.3, dim: int = 3
) -> Instance:
    """Training rows in four clusters, validation rows in two; rewards of any sign."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, dim)) * 2
    x = centres[rng.integers(4, size=n_train)] + rng.normal(size=(n_train, dim))
    y = centres[rng.integers(2, size=n_valid)] + rng.normal(size=(n_valid, dim))
    g = rng.gamma(4.0, size=n_train)
    errors, rewards = rng.random(n_train), rng.normal(size=n_train)
    x, y, g, errors, rewards = (
        part.astype(np.float32) for part in (x, y, g, errors, rewards)
    )
    return Instance(x, y, g, errors, rewards, lambda_)
