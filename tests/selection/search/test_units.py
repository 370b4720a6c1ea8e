import numpy as np
import pytest

from goracs_jax.selection.search.units import draw_units, units_per_slot


@pytest.mark.parametrize("total", [7, 100])
def test_units_are_less_than_one_off_their_share_and_right_on_average(total):
    rng = np.random.default_rng(0)
    mass = rng.exponential(size=9)
    mass[3] = 0
    mass /= mass.sum()
    drawn = np.array([draw_units(mass, total, rng) for _ in range(400)])
    assert (drawn.sum(1) == total).all()
    assert (np.abs(drawn - total * mass) < 1 + 1e-9).all()
    assert (drawn[:, 3] == 0).all()
    # Standard deviation 1 / 2 at most, of 400.
    assert np.abs(drawn.mean(0) - total * mass).max() < 4 * 0.5 / 20


def test_units_of_equal_weights_are_those_without_weights():
    for n, m in [(4, 10), (7, 3), (10, 25)]:
        equal = units_per_slot(n, m, mass=np.full(m, 1 / m))
        assert equal == units_per_slot(n, m)


def test_uneven_weights_take_more_units():
    mass = np.array([0.9, 0.07, 0.03])
    s = units_per_slot(2, 3, 0.05, mass)
    off = lambda s: (2 * (2 * s * mass % 1) * (1 - 2 * s * mass % 1)).sum() / (2 * s)
    assert off(s) <= 0.05
    assert all(off(fewer) > 0.05 for fewer in range(1, s))


def test_budgets_with_weights_share_programs():
    mass = np.random.default_rng(0).exponential(size=500)
    units = {units_per_slot(n, 500, 0.05, mass / mass.sum()) for n in range(61, 65)}
    assert units == {56}
