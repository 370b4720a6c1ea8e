"""Random instances of the selection problem."""

from typing import NamedTuple

import numpy as np

from goracs_jax.cost import Cost, make_cost
from goracs_jax.selection.problem import Problem


class Instance(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    g: np.ndarray
    errors: np.ndarray
    lambda_: float

    @property
    def cost(self) -> Cost:
        return make_cost(self.x, self.y, self.g, self.lambda_)

    @property
    def problem(self) -> Problem:
        return Problem(self.cost, grad_norms=self.g, prediction_errors=self.errors)


def instance(
    n_train: int, n_valid: int, *, seed: int, lambda_: float = 0.3, dim: int = 3
) -> Instance:
    """Training rows in four clusters, validation rows in two, positive scores."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, dim)) * 2
    x = centres[rng.integers(4, size=n_train)] + rng.normal(size=(n_train, dim))
    y = centres[rng.integers(2, size=n_valid)] + rng.normal(size=(n_valid, dim))
    g = rng.gamma(4.0, size=n_train)
    errors = rng.random(n_train)
    return Instance(*(part.astype(np.float32) for part in (x, y, g, errors)), lambda_)
