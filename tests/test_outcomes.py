"""What benchmarks/outcomes.py says of an experiment, against plain loops."""

import json
import sys
from math import exp, log, log2
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


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

    def cell(poo, loss, lambda_=None, budget=8):
        figures = {"poo": poo, "lambda_": lambda_, "budget": budget}
        return figures | {"valid_loss": loss, "metrics": {"AUC": -loss}}

    cells = [cell(p, v) for p, v in values]
    found = outcomes.ranks([*cells, cell(9.0, 99.0, 0.1), cell(None, 99.0)])
    # Spearman: 1 - 6 sum d^2 / (n (n^2 - 1)), here with d = -3, 0, 0... of 4 ranks.
    d2 = (1 - 4) ** 2 + (2 - 2) ** 2 + (3 - 3) ** 2 + (4 - 1) ** 2
    assert found["cells"] == 4
    assert found["valid_loss"]["rho"] == pytest.approx(1 - 6 * d2 / (4 * 15))
    assert found["AUC"]["rho"] == pytest.approx(-found["valid_loss"]["rho"])
    # A larger budget has another POO and another loss, which ranks nothing, and one
    # cell alone neither. Centred ranks: -1.5 .. 1.5 over 4 cells and -1, 0, 1 over 3.
    larger = [cell(p / 2, v - 9, budget=16) for p, v in values[:3]]
    alone = [cell(0.0, -99.0, budget=99)]
    products = ((-1.5) * 1.5 + (-0.5) * (-0.5) + 0.5 * 0.5 + 1.5 * (-1.5)) / 16
    products += (-1 * 1 + 0 * -1 + 1 * 0) / 9
    assert outcomes.ranks(cells + larger + alone)["valid_loss"]["rho"] == (
        pytest.approx(products / (5 / 16 + 2 / 9))
    )
    assert outcomes.ranks(alone)["AUC"]["rho"] is None
    assert outcomes.ranks([]) == {"cells": 0, "valid_loss": {"rho": None}}


def test_bias_counts_too_little_yes_as_too_much(outcomes):
    cells = [
        {"excess_yes": e, "budget": 8, "metrics": {"log likelihood": v}}
        for e, v in [(0.0, -0.5), (0.1, -0.6), (-0.2, -0.7), (0.3, -0.8)]
    ]
    assert outcomes.bias_against(cells)["rho"] == pytest.approx(-1)


def test_popularity_draws_lots_where_counts_are_level(outcomes, tmp_path):
    (tmp_path / "data").mkdir()
    titles = ["a", "b", "c", "d"]
    items = [{"item_id": i, "title": title} for i, title in enumerate(titles)]
    items.append({"item_id": 4, "title": "a"})
    write(tmp_path / "data" / "items.jsonl", items)
    write(tmp_path / "train.jsonl", [{"target": i} for i in (0, 4, 1, 2)])
    asked = [{"target": 1, "negatives": [0, 2, 3]}, {"target": 0, "negatives": [4, 1]}]
    write(tmp_path / "test.jsonl", asked)
    # b stands behind a and before or behind c; a is first, whatever item has the title.
    found = outcomes.popularity(tmp_path)
    assert found["HR@1"] == 0.5
    assert found["NDCG@5"] == pytest.approx(((1 / log2(3) + 1 / log2(4)) / 2 + 1) / 2)


def test_cells_of_reads_what_a_comparison_left(outcomes, tmp_path):
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
    (folder / "metrics.predictions.jsonl").write_text(
        '{"log_likelihoods": [-3.0], "tokens": [2]}\n'
    )
    (found,) = outcomes.cells_of("seqrec", tmp_path, record, tmp_path)
    # The pool has Yes twice and No once.
    assert found["log_popularity"] == pytest.approx(log(2) / 2)
    assert found["metrics"] == {"log likelihood": -1.5}


def test_machines_of_names_what_chose_and_what_trained(outcomes):
    trained = {"device": {"kind": "H200"}}
    cells = [trained | {"chosen_on": {"kind": "cpu"}}, trained | {"chosen_on": None}]
    found = outcomes.machines_of([*cells, trained])
    assert found == {"chosen on": ["cpu"], "trained on": ["H200"]}
