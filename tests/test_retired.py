"""What benchmarks/retired.py says of the retired studies, against plain loops."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from goracs_jax.evaluate.catalogue import Catalogue

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def retired(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import retired

    yield retired
    sys.modules.pop("retired")


def test_pairs_of_equal_counts_are_those_of_a_loop(retired):
    rng = np.random.default_rng(0)
    count, yes = rng.integers(0, 4, 60), rng.random(60) < 0.5
    score = rng.integers(0, 9, 60) / 8
    pairs = [
        (score[i] > score[j]) + (score[i] == score[j]) / 2
        for i in range(60)
        for j in range(60)
        if yes[i] and not yes[j] and count[i] == count[j]
    ]
    assert retired.within(count, yes, score) == pytest.approx(np.mean(pairs))


def test_counts_in_the_pool_rank_by_targets_alone(retired):
    known = Catalogue({k: i for i, k in enumerate("abcd")}, np.arange(4), list("ABCD"))
    train = [{"target": "a"}, {"target": "a"}, {"target": "b"}, {"target": "c"}]
    test = [
        {"target": "a", "negatives": ["b", "d"]},  # first
        {"target": "b", "negatives": ["a", "c"]},  # second or third
    ]
    expected = (1 + (1 / np.log2(3) + 1 / 2) / 2) / 2
    assert retired.in_pool(train, test, known) == pytest.approx(expected)


def test_examples_are_those_of_the_time_without_newer_keys(retired):
    records = [{"instruction": "é", "output": "Yes", "history": ["a"], "liked": [True]}]
    line = '{"instruction": "é", "output": "Yes"}\n'
    expected = retired.hashlib.sha256(line.encode()).hexdigest()
    assert retired.hash_of(records) == expected


@pytest.mark.parametrize("study", ["ctr", "ctr_users", "ctr_long"])
def test_figures_are_those_of_the_stored_predictions(study):
    """AUC of random and of all data, from the predictions and by scikit-learn."""
    results = BENCHMARKS / "results"
    found = json.loads((results / "retired.json").read_text())["ctr"][study]
    areas: dict[tuple[str, int], list[float]] = {}
    for row in pl.read_parquet(results / f"experiment_{study}.parquet").iter_rows(
        named=True
    ):
        if json.loads(row["record"])["device"]["kind"] == found["device"]:
            yes = [p["label"] == "Yes" for p in row["predictions"]]
            area = roc_auc_score(yes, [p["score"] for p in row["predictions"]])
            areas.setdefault((row["method"], row["budget"]), []).append(area)
    assert found["cells"] == sum(map(len, areas.values()))
    for budget in found["budgets"]:
        expected = np.mean(areas["random", budget["budget"]])
        # Ties of float32 scores that are nearly 0 or 1 count as in the figures.
        assert budget["random"] == pytest.approx(expected, abs=1e-6)
    (full,) = [area for (method, _), all_ in areas.items() for area in all_
               if method == "full"]  # fmt: skip
    assert found["full"][0]["AUC"] == pytest.approx(full, abs=1e-6)


def test_holm_goes_over_all_methods_and_budgets():
    study = json.loads((BENCHMARKS / "results" / "retired.json").read_text())["ctr"]
    for metric in ("AUC", "calibrated log likelihood"):
        family = [
            row for row in study["ctr_long"]["against_random"]
            if row["metric"] == metric
        ]  # fmt: skip
        family.sort(key=lambda row: row["p"])
        largest = 0.0
        for rank, row in enumerate(family):
            largest = max(largest, min(1.0, (len(family) - rank) * row["p"]))
            assert row["holm"] == pytest.approx(largest)
