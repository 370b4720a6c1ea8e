"""benchmarks/kept.py loses no byte of a trial; the figures come from what it keeps."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from goracs_jax.evaluate.outcomes import values_of

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
STUDIES = ("experiment_ctr", "experiment_ctr_users", "experiment_ctr_long")
KEY = ["method", "lambda_", "budget", "seed"]


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import kept

    yield kept
    sys.modules.pop("kept")


def write_trial(folder, key, predictions, indices=None):
    """Write a trial as `goracs compare` does, with files that are not kept."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "weights").write_bytes(b"large")
    lines = "".join(json.dumps(record) + "\n" for record in predictions)
    (folder / "metrics.predictions.jsonl").write_text(lines)
    record = {
        "cell": dict(zip(KEY, key, strict=True)),
        "valid_loss": 0.1 + 0.2,
        "predictions": hashlib.sha256(lines.encode()).hexdigest(),
    }
    (folder / "cell.json").write_text(json.dumps(record, indent=1) + "\n")
    if indices is not None:
        (folder / "selection").mkdir()
        np.save(folder / "selection" / "indices.npy", indices)


@pytest.fixture
def cells(tmp_path):
    """Trials of two methods and of the full data; one more is not finished."""
    folder, rng = tmp_path / "cells", np.random.default_rng(0)
    answers = lambda: [
        {"example": i, "label": label, "score": float(score)}
        for i, (label, score) in enumerate(zip("YN", rng.random(2), strict=True))
    ]
    rows = np.array([1, 5, 2**40])
    write_trial(folder / "b", ("goracs", 0.1, 3, 0), answers(), rows)
    write_trial(folder / "a", ("random", None, 3, 1), answers(), rows[:1])
    extremes = [1.0, 0.0, 5e-324, 1 / 3, float(np.float32(1 / 3))]
    records = [{"example": i, "label": "é", "score": x} for i, x in enumerate(extremes)]
    write_trial(folder / "c", ("full", None, 9, 0), records)
    (folder / "d").mkdir()
    (folder / "d" / "adapter.npz").write_bytes(b"")
    return folder


def test_unpack_restores_every_byte(kept, cells, tmp_path):
    path, again = tmp_path / "kept.parquet", tmp_path / "again"
    kept.pack(cells, path)
    kept.unpack(path, again)
    found = {p.relative_to(again).as_posix() for p in again.rglob("*") if p.is_file()}
    names = ("cell.json", "metrics.predictions.jsonl", "selection/indices.npy")
    expected = {f"{trial}/{name}" for trial in "abc" for name in names}
    assert found == expected - {"c/selection/indices.npy"}
    for name in found:
        assert (again / name).read_bytes() == (cells / name).read_bytes(), name
    kept.pack(again, tmp_path / "second.parquet")
    assert (tmp_path / "second.parquet").read_bytes() == path.read_bytes()


def test_nested_predictions_survive(kept, tmp_path):
    predictions = [
        {"rank": 2, "title": None, "log_likelihoods": [-6.0, -0.1], "tokens": [4, 2]},
        {"rank": 0, "title": "x", "log_likelihoods": [-3.5], "tokens": [1]},
    ]
    write_trial(tmp_path / "cells" / "a", ("random", None, 1, 0), predictions)
    kept.pack(tmp_path / "cells", tmp_path / "kept.parquet")
    kept.unpack(tmp_path / "kept.parquet", tmp_path / "again")
    name = "metrics.predictions.jsonl"
    stored = [(tmp_path / at / "a" / name).read_bytes() for at in ("cells", "again")]
    assert stored[0] == stored[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.predictions.jsonl", '{"score":0.50}\n'),
        ("metrics.predictions.jsonl", '{"score": 1}\n{"score": 0.5}\n'),
        ("metrics.predictions.jsonl", '{"score": 1.0}\n{"label": "Yes"}\n'),
    ],
    ids=["other spelling of a number", "int beside float", "other keys"],
)
def test_pack_refuses_what_would_not_come_back(kept, cells, tmp_path, name, content):
    (cells / "a" / name).write_text(content)
    with pytest.raises(ValueError, match=rf"a/{name} is not as `goracs compare`"):
        kept.pack(cells, tmp_path / "kept.parquet")
    assert not (tmp_path / "kept.parquet").exists()


def test_pack_refuses_indices_of_another_type(kept, cells, tmp_path):
    np.save(cells / "b" / "selection" / "indices.npy", np.array([1], np.int32))
    with pytest.raises(ValueError, match=r"b/selection/indices.npy is not as"):
        kept.pack(cells, tmp_path / "kept.parquet")


def test_pack_refuses_a_folder_without_trials(kept, tmp_path):
    with pytest.raises(ValueError, match="has no finished trial"):
        kept.pack(tmp_path, tmp_path / "kept.parquet")


def test_predictions_are_one_row_for_each_trial_and_example(kept, cells, tmp_path):
    kept.pack(cells, tmp_path / "kept.parquet")
    table = kept.predictions(tmp_path / "kept.parquet")
    assert table.columns == ["trial", *KEY, "example", "label", "score"]
    assert table["trial"].to_list() == ["a"] * 2 + ["b"] * 2 + ["c"] * 5
    of_b = table.filter(pl.col("trial") == "b")
    assert of_b.select("method", "lambda_", "example", "label").rows() == [
        ("goracs", 0.1, 0, "Y"),
        ("goracs", 0.1, 1, "N"),
    ]
    lines = (cells / "b" / "metrics.predictions.jsonl").read_text().splitlines()
    assert of_b["score"].to_list() == [json.loads(line)["score"] for line in lines]


@pytest.mark.parametrize("study", STUDIES)
def test_stored_predictions_give_the_stored_figures(kept, study):
    results = BENCHMARKS / "results"
    figures = json.loads((results / f"{study}.json").read_text())
    stored = {tuple(cell[k] for k in KEY): cell for cell in figures["cells"]}
    trials = pl.read_parquet(results / f"{study}.parquet")
    assert set(trials.select(KEY).rows()) == stored.keys()
    for row in trials.iter_rows(named=True):
        cell = stored[tuple(row[k] for k in KEY)]
        values = values_of("ctr", row["predictions"])
        for name in ("AUC", "log likelihood"):
            # float64 sums; a score goes through its logit, which costs a few roundings.
            found, expected = float(values[name].mean()), cell["metrics"][name]
            assert found == pytest.approx(expected, rel=1e-9), name
        record = json.loads(row["record"])
        assert record["valid_loss"] == cell["valid_loss"]
        budget = None if row["method"] == "full" else row["budget"]
        assert budget == (row["indices"] and len(row["indices"]))


@pytest.mark.parametrize("study", STUDIES)
def test_stored_trials_are_those_that_compare_wrote(kept, study, tmp_path):
    kept.unpack(BENCHMARKS / "results" / f"{study}.parquet", tmp_path)
    records = sorted(tmp_path.glob("*/cell.json"))
    assert records
    for path in records:
        said = (path.parent / "metrics.predictions.jsonl").read_bytes()
        expected = json.loads(path.read_text())["predictions"]
        assert hashlib.sha256(said).hexdigest() == expected
