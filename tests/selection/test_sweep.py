"""Every selection of a sweep is what a run of its own gives, and the rest is shared."""

import jax
import numpy as np
import pytest
from instances import instance

from goracs_jax import goracs, sweep
from goracs_jax.cost import build as cost_module
from goracs_jax.cost import passes
from goracs_jax.errors import InputError
from goracs_jax.selection import sweep as sweep_module
from goracs_jax.selection.method import METHODS, FunctionMethod

KEY = jax.random.key(2)
CASE = instance(60, 40, seed=3)
BUDGETS, LAMBDAS = [3, 8], [0.0, 0.4]
LABELS = {
    "train_labels": np.arange(60) % 3,
    "valid_labels": np.repeat([0, 1, 2], [10, 20, 10]),
}


@pytest.mark.parametrize(
    ("method", "labels"),
    [*((method, {}) for method in sorted(METHODS)), ("greedy", LABELS)],
)
def test_every_selection_is_a_run_of_its_own(method, labels):
    arguments = {"key": KEY, "method": method, **CASE.scores_for(method), **labels}
    found = sweep(CASE.x, CASE.y, budgets=BUDGETS, lambdas=LAMBDAS, **arguments)
    assert set(found) == {(n, lambda_) for n in BUDGETS for lambda_ in LAMBDAS}
    for (budget, lambda_), selection in found.items():
        alone = goracs(CASE.x, CASE.y, budget=budget, lambda_=lambda_, **arguments)
        assert (selection.indices == alone.indices).all()
        assert selection[1:3] == alone[1:3]
        assert [s.objective for s in selection.trace] == [
            s.objective for s in alone.trace
        ]


def test_what_is_common_is_done_once(monkeypatch):
    calls = []
    largest, greedy = cost_module._largest_and_means, sweep_module.greedy

    def counted(name, fn):
        return lambda *arguments: calls.append((name, *arguments[1:])) or fn(*arguments)

    monkeypatch.setattr(cost_module, "_largest_and_means", counted("max", largest))
    monkeypatch.setattr(sweep_module, "greedy", counted("greedy", greedy))
    monkeypatch.setattr(passes, "_matrix", counted("matrix", passes._matrix))
    sweep(*CASE[:3], budgets=BUDGETS, lambdas=LAMBDAS, key=KEY, method="greedy")
    assert calls == [("max",), ("matrix",), ("greedy", 8), ("greedy", 8)]


@pytest.mark.parametrize(
    ("budgets", "lambdas", "message"),
    [
        ([], [0.1], r"at least one budget and one lambda"),
        ([3], [], r"at least one budget and one lambda"),
        ([3, 61], [0.1], r"budget must be in \[1, 60\], got 61"),
        ([3, 0], [0.1], r"budget must be in \[1, 60\], got 0"),
        ([3], [0.1, -1.0], r"lambda must be in \[0, 1000\], got -1\.0"),
        ([3], [0.1, np.nan], r"lambda must be in \[0, 1000\], got nan"),
    ],
)
def test_bad_lists_are_refused_before_the_first_selection(budgets, lambdas, message):
    def never(problem, budget, *, key):
        raise AssertionError("nothing may be selected")

    method = FunctionMethod(name="never", choose=never, about="Fails.", needs=())
    with pytest.raises(InputError, match=message):
        sweep(*CASE[:3], budgets=budgets, lambdas=lambdas, key=KEY, method=method)
