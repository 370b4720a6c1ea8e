"""ott-jax, seen in 0.6.0."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn

N, M = 6, 7
COST = jnp.asarray(np.random.default_rng(0).random((N, M)), jnp.float32)


def solve(cost=COST, threshold=1e-3, **limits):
    problem = linear_problem.LinearProblem(geometry.Geometry(cost, epsilon=0.01))
    return sinkhorn.Sinkhorn(threshold=threshold, **limits)(problem)


def off(out, axis):
    """How far the sums over an axis of the plan are from uniform, in L1."""
    sums = np.asarray(out.matrix).sum(axis)
    return np.abs(sums - 1 / len(sums)).sum()


def test_converged_with_an_infinite_error():
    """ott-jax 0.6.0: Sinkhorn stops at once where `min_iterations` is a multiple.

    It measures the error every `inner_iterations` (10) iterations, and only after
    `min_iterations`; before that the error is infinite. With min_iterations = 20 it
    stops at 20 with that infinite error and says that it has converged. So the
    iterations of `Annealing` (goracs_jax/transport) end with a nine.
    """
    out = solve(min_iterations=20, max_iterations=2000)
    gone = "min_iterations may be a multiple of ten: iterations of Annealing too"
    assert bool(out.converged), gone
    assert int(out.n_iters) == 20, gone
    assert not np.isfinite(out.errors[1]), gone
    assert off(out, 0) > 0.1, gone
    out = solve(min_iterations=19, max_iterations=2000)
    assert int(out.n_iters) > 20
    assert off(out, 0) < 1e-3


def test_the_error_is_that_of_one_marginal():
    """ott-jax 0.6.0: the error compares the column sums of the plan alone.

    The row sums have just been made right, up to rounding, which is not counted. So
    `sinkhorn` (goracs_jax/transport) gives ott half of its threshold and measures
    both marginals itself.
    """
    out = solve(min_iterations=0, max_iterations=10)
    rows, columns = off(out, 1), off(out, 0)
    gone = "ott measures both marginals: transport.sinkhorn can give it the threshold"
    np.testing.assert_allclose(out.errors[0], columns, rtol=1e-4, err_msg=gone)
    assert 0 < rows < 1e-5, gone


@pytest.mark.parametrize(("least", "is_scan"), [(30, True), (29, False)])
def test_as_many_iterations_at_least_as_at_most_are_a_scan(least, is_scan):
    """ott-jax 0.6.0: no loop ends early, under `vmap` either, where the two agree.

    So `pair_values` (goracs_jax/transport/batched.py) asks for
    min_iterations = max_iterations, where a while loop would run every lane of a batch
    until the last has ended and measure errors that nobody reads.
    """
    solved = lambda cost: solve(cost, 0.0, min_iterations=least, max_iterations=30).f
    program = str(jax.make_jaxpr(solved)(COST))
    assert ("while" not in program) == is_scan, (
        "ott chooses its loop otherwise: look at min_iterations in pair_values"
    )


def test_its_import_warns_of_jaxopt():
    """ott-jax 0.6.0 imports jaxopt (0.8.5), which warns that it is not maintained.

    So pyproject.toml ignores a DeprecationWarning of jaxopt.
    """
    assert "jaxopt" in sys.modules, "ott needs no jaxopt: filterwarnings can lose it"
    with pytest.warns(DeprecationWarning, match="no longer maintained"):
        importlib.reload(sys.modules["jaxopt"])
