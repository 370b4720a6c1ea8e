"""Where points have weights: a fractional knapsack, filled by a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goracs_jax.cost import column_mass, exact_cost, make_cost
from goracs_jax.selection.serving import (
    FEW,
    GROUP,
    last_served,
    mass_sent,
    most_served,
    points_served,
    serve,
    served_by,
)
from goracs_jax.selection.values import values_below
from goracs_jax.shapes import sizes_alike


def knapsack(x, most, mass):
    """The least sum of x_j P_j with P_j <= most_j and sum_j P_j = mass, and P."""
    sent = np.zeros(len(x))
    for j in np.argsort(x, kind="stable"):
        sent[j] = min(most[j], mass - sent.sum())
    return (x * sent).sum(), sent


def weights(rng, m):
    b = rng.exponential(size=m) ** 3
    b[rng.integers(m)] = 0
    return b / b.sum()


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_a_row_serves_its_cheapest_points(n):
    m, served = 12, served_by(n, 12)
    run = jax.jit(serve, static_argnums=3)
    send = jax.jit(mass_sent)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, b = rng.normal(size=(4, m)).astype(np.float32), weights(rng, m)
        most = np.minimum(1 / n, np.tile(b, (4, 1))).astype(np.float32)
        value, low, t = run(
            jnp.asarray(x), jnp.asarray(most), served, most_served(n, m)
        )
        parts = send(x, low[:, None], t[:, None], most, served)
        for row in range(4):
            expected, sent = knapsack(
                x[row].astype(float), most[row].astype(float), 1 / n
            )
            # float32, and t to 2^-26 of the range
            assert float(value[row]) == pytest.approx(expected, abs=2e-6)
            found = np.asarray(parts[row]) / served.parts
            assert found == pytest.approx(sent, abs=2 / served.parts)


@pytest.mark.parametrize(("n", "scale"), [(1, 0.0), (3, 0.1), (3, 30.0), (20, 1.0)])
def test_values_below_are_below_and_near(n, scale):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(25, 3))
    g = (scale * rng.normal(size=25)).astype(np.float32)
    norms = rng.exponential(size=60)
    cost = make_cost(x, y, norms, 0.5, valid_weights=weights(rng, 25))
    below = np.asarray(values_below(cost, jnp.asarray(g), n), np.float64)
    b = column_mass(cost)
    exact = exact_cost(cost, np.arange(60)) - g
    value = np.array([knapsack(row, np.minimum(1 / n, b), 1 / n)[0] for row in exact])
    assert (below <= value).all()
    # Rounding by the size of the numbers, for 25 terms.
    assert n * (value - below).max() < 2e-5 * (2 + np.abs(g).max())


@pytest.mark.parametrize("s", [0.5, 2, 11.3, FEW, FEW + 1])
@pytest.mark.parametrize("kind", ["apart", "equal", "together"])
def test_the_last_that_is_served(s, kind):
    k = int(np.ceil(s))
    rng = np.random.default_rng(k)
    width = 4 * GROUP * (k + 2) + 5  # no multiple of a group
    x = rng.normal(size=(7, width)).astype(np.float32)
    if kind == "equal":
        x = np.round(x)
    if kind == "together":  # all that are served are in one group, or in a few
        at = np.arange(k) % GROUP * -(-width // GROUP) + np.arange(k) // GROUP
        x[:, at] -= 10
    for most in (k, k + 2):
        found = last_served(jnp.asarray(x), k, most)
        assert found.tolist() == np.sort(x, axis=1)[:, k - 1].tolist()
    x = x[:, : 4 * GROUP * k - 1]  # too narrow for groups
    for most in (k, k + 2):
        found = last_served(jnp.asarray(x), k, most)
        assert found.tolist() == np.sort(x, axis=1)[:, k - 1].tolist()


@pytest.mark.parametrize(("n", "n_valid"), [(64, 500), (1000, 5000), (70, 20), (3, 9)])
def test_a_program_is_for_the_most_that_a_row_serves(n, n_valid):
    served = [served_by(other, n_valid).last for other in sizes_alike(n)]
    assert most_served(n, n_valid) == max(served)
    assert points_served(n, n_valid) <= served_by(n, n_valid).last


@pytest.mark.parametrize("weighted", [False, True])
def test_all_mass_may_go_to_one_point(weighted):
    """Of 600,000 points, or rows, all parts together once overflowed 32 bits."""
    n, m = (3, 600_000) if weighted else (600_000, 1)
    served, at = served_by(n, m), jnp.zeros((n, 1))
    takes = jnp.full((n, 1), served.mass) if weighted else None
    low = at - 1 if weighted else at
    sent = mass_sent(at, low, at, takes, served).sum()
    assert float(sent) / served.parts == pytest.approx(1, abs=1e-6)
