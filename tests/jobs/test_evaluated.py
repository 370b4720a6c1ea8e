"""The files of an evaluation: both appear, or none does."""

import pytest

from goracs_jax.evaluate.metrics import Estimate
from goracs_jax.jobs import evaluate
from goracs_jax.jobs.evaluate import Evaluated


def evaluated(value):
    metrics = {"AUC": Estimate(value, 0.0, 1.0)}
    predictions = [{"example": 0, "score": value}]
    return Evaluated("ctr", metrics, predictions, {}, {}, {"seed": 0}, {})


def test_a_failed_save_leaves_the_earlier_files(tmp_path, monkeypatch):
    out = tmp_path / "m.json"
    evaluated(0.5).save(out, {})
    contents = lambda: {
        p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()
    }
    before = contents()
    assert set(before) == {"m.json", "m.predictions.jsonl"}
    assert Evaluated.load(out).predictions == evaluated(0.5).predictions

    def fail(path, record):
        raise OSError("no space")

    monkeypatch.setattr(evaluate, "write_json", fail)
    with pytest.raises(OSError, match="no space"):
        evaluated(0.75).save(out, {})
    with pytest.raises(OSError, match="no space"):
        evaluated(0.75).save(tmp_path / "other.json", {})
    assert contents() == before
    monkeypatch.undo()
    evaluated(0.75).save(out, {})
    assert Evaluated.load(out).predictions == evaluated(0.75).predictions
