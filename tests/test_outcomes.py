"""What benchmarks/outcomes.py says of an experiment, against plain loops."""

import json
import sys
from math import exp, log
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def outcomes(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import outcomes

    yield outcomes
    sys.modules.pop("outcomes")


def test_recentred_fits_one_half_of_the_users_for_the_other(outcomes):
    rng = np.random.default_rng(0)
    yes, users = rng.random(40) < 0.6, np.repeat(np.arange(20), 2)
    score = 1 / (1 + np.exp(-rng.normal(2, 1, 40)))  # far too much Yes
    found = outcomes.recentred(yes, score, users)

    def value(row: int, b: float) -> float:
        p = 1 / (1 + exp(-log(score[row] / (1 - score[row])) - b))
        return log(p if yes[row] else 1 - p)

    for half in (0, 1):
        fitted = [row for row in range(40) if users[row] % 2 != half]
        judged = [row for row in range(40) if users[row] % 2 == half]
        grid = np.arange(-6, 6, 0.01)
        best = max(grid, key=lambda b, rows=fitted: sum(value(r, b) for r in rows))
        # A log likelihood has slope of at most 1 in b, and the grid's best lies within
        # one of its steps of the maximum, where the sum is concave.
        np.testing.assert_allclose(
            found[judged], [value(row, best) for row in judged], atol=0.01
        )


def test_over_seeds_pairs_what_both_have(outcomes):
    def cell(method, seed, values, lambda_=None):
        key = {"method": method, "lambda_": lambda_, "budget": 2, "seed": seed}
        return key | {"recentred": values}

    cells = [
        cell("random", 0, [-1.0, -2.0, -3.0]),
        cell("random", 1, [-1.0, -1.0, -1.0]),
        cell("goracs", 0, [-0.5, -1.0, -2.0], 0.1),
        cell("goracs", 2, [-9.0, -9.0, -9.0], 0.1),  # random lacks this seed
    ]
    users = np.array([0, 0, 1])
    random, goracs = outcomes.over_seeds(cells, users)
    assert random["value"]["value"] == pytest.approx(-1.5)
    assert "over_random" not in random
    assert goracs["over_random"]["value"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert outcomes.over_seeds(cells, users) == [random, goracs]  # cells stay whole


def test_ranks_leave_out_what_saw_gradients(outcomes):
    values = [(0.1, 3.0), (0.2, 2.0), (0.3, 2.5), (0.4, 1.0)]
    cells = [
        {"poo": p, "lambda_": None, "valid_loss": v, "metrics": {"AUC": -v}}
        for p, v in values
    ]
    cells += [
        {"poo": 9.0, "lambda_": 0.1, "valid_loss": 99.0, "metrics": {"AUC": 99.0}},
        {"poo": None, "lambda_": None, "valid_loss": 99.0, "metrics": {"AUC": 99.0}},
    ]
    found = outcomes.ranks(cells)
    # Spearman: 1 - 6 sum d^2 / (n (n^2 - 1)), here with d = -3, 0, 0... of 4 ranks.
    d2 = (1 - 4) ** 2 + (2 - 2) ** 2 + (3 - 3) ** 2 + (4 - 1) ** 2
    assert found["cells"] == 4
    assert found["valid_loss"]["rho"] == pytest.approx(1 - 6 * d2 / (4 * 15))
    assert found["AUC"]["rho"] == pytest.approx(-found["valid_loss"]["rho"])


def test_bias_counts_too_little_yes_as_too_much(outcomes):
    cells = [
        {"excess_yes": e, "metrics": {"log likelihood": v}}
        for e, v in [(0.0, -0.5), (0.1, -0.6), (-0.2, -0.7), (0.3, -0.8)]
    ]
    assert outcomes.bias_against(cells)["rho"] == pytest.approx(-1)


def test_cells_of_reads_what_a_comparison_left(outcomes, tmp_path):
    write = lambda path, rows: path.write_text(
        "".join(json.dumps(r) + "\n" for r in rows)
    )
    write(tmp_path / "train.jsonl", [{"output": x} for x in ("Yes", "No", "Yes")])
    write(tmp_path / "test.jsonl", [{"user": u} for u in "aabb"])
    folder = tmp_path / "cells" / "x"
    (folder / "selection").mkdir(parents=True)
    np.save(folder / "selection" / "indices.npy", np.array([0, 1]))
    labels, scores = ("Yes", "No", "Yes", "No"), (0.8, 0.5, 0.25, 0.5)
    predictions = [
        {"label": x, "score": s} for x, s in zip(labels, scores, strict=True)
    ]
    write(folder / "metrics.predictions.jsonl", predictions)
    made = {"folder": "cells/x", "poo": 0.5, "valid_loss": 1.0, "epochs": 2}
    record = {"cells": [made | {"cell": {"method": "random", "seed": 0}}]}
    (found,) = outcomes.cells_of("ctr", tmp_path, record, tmp_path)
    assert found["method"] == "random"
    assert found["yes"] == 0.5
    assert found["excess_yes"] == pytest.approx(sum(scores) / 4 - 0.5)
    likely = (log(0.8) + 2 * log(0.5) + log(0.25)) / 4
    assert found["metrics"]["log likelihood"] == pytest.approx(likely)
    assert len(found["recentred"]) == 4
