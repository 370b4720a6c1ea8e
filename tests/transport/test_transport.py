import jax
import numpy as np
import oracles
import pytest
from instances import instance

from goracs_jax.cost import exact_cost
from goracs_jax.errors import InputError, NumericalError
from goracs_jax.transport import (
    Solver,
    dual_value,
    exact,
    find_solver,
    sinkhorn,
)

SHAPES = [(1, 1), (1, 7), (7, 1), (6, 9), (9, 6), (8, 8)]


def random_cost(n, m, seed=0):
    return exact_cost(instance(n, m, seed=seed).cost, np.arange(n))


@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_exact_is_the_linear_programme(n, m):
    cost = random_cost(n, m)
    solved = exact(cost)
    # linprog (HiGHS) stops at 1e-7 primal and dual infeasibility.
    assert solved.value == pytest.approx(oracles.transport(cost), abs=1e-6)
    # Complementary slackness, in float64.
    slack = cost - solved.f[:, None] - solved.g[None, :]
    assert slack.min() > -1e-12
    assert abs(slack[solved.plan > 0]).max() < 1e-12
    assert solved.marginal_error < 1e-12
    assert (solved.plan > 0).sum() <= n + m - 1


@pytest.mark.parametrize("solver", [exact, sinkhorn])
@pytest.mark.parametrize("shift", [-1000.0, -3.0, 1000.0])
def test_a_constant_moves_the_value_alone(solver, shift):
    cost = random_cost(6, 9)
    plain, shifted = solver(cost), solver(cost + shift)
    # float64 of 1000 + C.
    assert shifted.value == pytest.approx(plain.value + shift, abs=1e-9)
    np.testing.assert_allclose(shifted.plan, plain.plan, atol=1e-9)
    # The duals move with it: sum_i a_i f_i + sum_j b_j g_j moves by the constant.
    dual = lambda solved: solved.f.mean() + solved.g.mean()
    assert dual(shifted) == pytest.approx(dual(plain) + shift, abs=1e-5)  # float32 f, g


@pytest.mark.parametrize("solver", [exact, sinkhorn])
def test_equal_costs(solver):
    solved = solver(np.full((4, 6), 0.25))
    assert solved.converged
    assert solved.value == pytest.approx(0.25, abs=1e-12)
    rows = solver(np.tile(np.arange(6.0), (4, 1)))
    assert rows.converged
    assert rows.value == pytest.approx(2.5, abs=1e-12)  # any plan costs the same


def test_exact_takes_other_marginals():
    solved = exact(np.array([[0.0, 2.0]]), np.array([1.0]), np.array([0.25, 0.75]))
    assert solved.value == pytest.approx(1.5)


@pytest.mark.parametrize("noise", [0.01, 100.0])
def test_exact_from_potentials_has_the_same_optimum(noise):
    cost = random_cost(100, 120)  # about 0.37 of the arcs are tried first
    cold = exact(cost)
    g = cold.g + noise * np.random.default_rng(0).normal(size=120)
    warm = exact(cost, g=g, dense_arcs=0)
    assert warm.value == pytest.approx(cold.value, abs=1e-12)
    slack = cost - warm.f[:, None] - warm.g[None, :]
    assert slack.min() > -1e-9  # potentials are feasible to 1e-10 of the largest cost
    np.testing.assert_allclose(warm.plan.sum(1), 1 / 100, atol=1e-12)
    np.testing.assert_allclose(warm.plan.sum(0), 1 / 120, atol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_potentials_bound_the_value_from_below(noise):
    cost = random_cost(7, 12)
    b = np.random.default_rng(1).dirichlet(np.ones(12))
    solved = exact(cost, b=b)
    g = solved.g + noise * np.random.default_rng(0).normal(size=12)
    gap = solved.value - dual_value(cost, g, b)
    # At the optimal potentials there is no gap (strong duality), in float64.
    assert gap == pytest.approx(0, abs=1e-12) if noise == 0 else gap > 1e-3


def test_exact_says_that_it_found_no_optimum():
    with pytest.raises(NumericalError, match=r"no optimal transport plan .*sinkhorn"):
        exact(random_cost(30, 40), max_iterations=3)


def test_solvers_by_name(monkeypatch):
    assert isinstance(exact, Solver)
    assert find_solver("sinkhorn", 2, 2) is sinkhorn
    assert find_solver("auto", 2048, 2049) is exact  # on a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert find_solver("auto", 2048, 2048) is exact
    assert find_solver("auto", 2048, 2049) is sinkhorn
    with pytest.raises(InputError, match=r"one of auto, exact, sinkhorn, got 'best'"):
        find_solver("best", 2, 2)


@pytest.mark.parametrize("relative_epsilon", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_sinkhorn_is_within_its_bound(n, m, relative_epsilon):
    cost = random_cost(n, m)
    spread = np.ptp(cost)
    epsilon = relative_epsilon * max(spread, 1.0)
    solved = sinkhorn(cost, epsilon=epsilon)
    assert solved.converged
    # Rounded in float32: each sum has a few roundings of 6e-8.
    np.testing.assert_allclose(solved.plan.sum(1), 1 / n, rtol=1e-6)
    np.testing.assert_allclose(solved.plan.sum(0), 1 / m, rtol=1e-6)
    assert solved.plan.min() >= 0
    bound = epsilon * np.log(min(n, m)) + 2 * solved.marginal_error * spread
    excess = solved.value - oracles.transport(cost)
    assert -1e-6 <= excess <= bound + 1e-6  # 1e-6: float32 entries of C


def test_sinkhorn_says_when_it_has_not_converged():
    solved = sinkhorn(random_cost(30, 40), max_iterations=220, threshold=1e-9)
    assert not solved.converged
    assert solved.marginal_error > 1e-9


def test_sinkhorn_starts_anew_where_a_warm_start_leads_nowhere():
    cost = random_cost(30, 40)
    # Potentials a hundred times the costs: float32 has no digits left for these.
    misleading = 100 * np.random.default_rng(0).normal(size=40)
    warm, cold = sinkhorn(cost, g=misleading), sinkhorn(cost)
    assert warm.converged
    np.testing.assert_array_equal(warm.plan, cold.plan)


def test_sinkhorn_refuses_an_epsilon_below_float32():
    with pytest.raises(InputError, match=r"epsilon 1\.0e-09 is too small for float32"):
        sinkhorn(np.array([[0.0, 1.0], [1.0, 0.0]]), epsilon=1e-9)
