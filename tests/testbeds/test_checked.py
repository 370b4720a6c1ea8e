"""What `goracs check` found in testbeds, from the losses that it kept."""

import json
from pathlib import Path

import pytest
from scipy.stats import spearmanr

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"
FOUND = [
    pytest.param(found, id=f"{path.stem}-{seed}")
    for path in sorted(RESULTS.glob("check_*.json"))
    for seed, found in json.loads(path.read_text())["seeds"].items()
]


@pytest.mark.parametrize("found", FOUND)
def test_the_correlations_are_those_of_the_kept_losses(found):
    losses = {
        run["place"]: run["loss"] for run in found["runs"] if run["part"] == "subsets"
    }
    assert sorted(losses) == list(range(found["sizes"]["subsets"]))
    outcomes = [losses[place] for place in sorted(losses)]
    icc = found["reliability"]["icc"]
    for told in (*found["spaces"].values(), *found["rewards"].values()):
        raw = float(spearmanr(told["scores"], outcomes)[0])
        # Both are float64 of the same ranks: rounding alone.
        assert told["lds_raw"]["value"] == pytest.approx(raw, abs=1e-12)
        assert told["lds"]["value"] == pytest.approx(raw / icc**0.5, abs=1e-12)
