from dataclasses import replace

import jax
import numpy as np
import pytest
from instances import instance

from goracs_jax.selection.method import Goracs, SimulatedAnnealing
from goracs_jax.selection.problem import Problem, objective
from goracs_jax.selection.search import stages


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
