from dataclasses import replace

import jax
import numpy as np
import pytest
from instances import instance

from goracs_jax.cost import with_tiling
from goracs_jax.selection.method import Goracs, SimulatedAnnealing
from goracs_jax.selection.problem import Problem, objective
from goracs_jax.selection.search import group_exchange, stages


@pytest.mark.parametrize("seed", range(3))
def test_a_large_cost_is_searched_like_a_small_one(monkeypatch, seed):
    """Where C is not kept, prices leave rows out, and the same subset is found."""
    case, given = instance(400, 60, seed=seed), []
    update = group_exchange.update_candidates

    def watched(*args):
        given.append(args[-1])
        return update(*args)

    monkeypatch.setattr(group_exchange, "update_candidates", watched)
    large = with_tiling(case.cost, matrix_entries=1)
    key = jax.random.key(0)
    kept, found = (
        stages.all_stages(Problem(cost), 12, key=key) for cost in (case.cost, large)
    )
    np.testing.assert_array_equal(found.indices, kept.indices)
    # A kept matrix is rounded once more.
    assert found.lower_bound == pytest.approx(kept.lower_bound, abs=1e-5)
    assert given
    assert all(seen is not None for seen in given)


@pytest.mark.parametrize("finds", [False, True])
@pytest.mark.parametrize("converged", [False, True])
def test_groups_are_exchanged_again_where_that_can_help(monkeypatch, finds, converged):
    case, exchanged = instance(30, 20, seed=2), []
    exchange = stages.group_exchange
    best = np.setdiff1d(np.arange(30), np.arange(26))

    def watched(problem, rows, **more):
        exchanged.append(rows)
        return exchange(problem, rows, **more)._replace(converged=converged)

    def anneal(problem, rows, **more):
        value = objective(problem.cost, rows)
        found = exchange(problem, best) if finds else exchange(problem, rows)
        step = found.trace[-1]._replace(objective=value - (1.0 if finds else 0.0))
        return found._replace(trace=(found.trace[0], step))

    monkeypatch.setattr(stages, "group_exchange", watched)
    monkeypatch.setattr(stages, "anneal", anneal)
    always = SimulatedAnnealing(gap=-1.0, slot_gap=-1.0)
    settings = replace(Goracs(), annealing=always)
    found = stages.all_stages(
        Problem(case.cost), 4, key=jax.random.key(0), settings=settings
    )
    assert len(exchanged) == (1 if converged and not finds else 2)
    assert len(found.indices) == 4
