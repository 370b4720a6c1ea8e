import numpy as np

from goracs_jax.gradients.adam import moments_of
from goracs_jax.training import FinetuneConfig


def test_moments_are_those_of_the_optimiser():
    """`moments_of` finds them among the states of clipping and schedule."""
    optimizer = FinetuneConfig(steps=30, learning_rate=1e-3).optimizer(30)
    params = {"b": np.ones((2, 2), np.float32), "a": np.ones(3, np.float32)}
    gradients = {"b": np.full((2, 2), 0.1, np.float32), "a": np.zeros(3, np.float32)}
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    found = moments_of(state)
    np.testing.assert_allclose(found.mu, [0, 0, 0] + [0.01] * 4, rtol=1e-6)
    np.testing.assert_allclose(found.nu, [0, 0, 0] + [1e-5] * 4, rtol=1e-5)
    assert found.count == 1
