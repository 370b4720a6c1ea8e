"""How the benchmark of adapters in the last layers compares the ranks of subsets."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def layers():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import layers

        yield layers
    for name in ("layers", "common", "lora_steps"):
        sys.modules.pop(name)


def rank_correlation(x, y):
    """Pearson's correlation of ranks, of numbers no two of which are equal."""
    ranks = [[sorted(z).index(value) for value in z] for z in (x, y)]
    return np.corrcoef(ranks)[0, 1]


def test_both_ways_and_the_ceiling_are_of_single_seeds(layers):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=9)
    columns = {
        f"{way}, seed {seed}": dict(
            zip("abcdefghi", (truth + rng.normal(size=9)).tolist(), strict=True)
        )
        for way in ("all layers", layers.LAST)
        for seed in (0, 1)
    }
    columns["all layers, seed 0"]["of one column"] = 3.0
    found = layers.agreement(columns)
    of = lambda way, seed: list(columns[f"{way}, seed {seed}"].values())[:9]
    cross = [
        rank_correlation(of("all layers", i), of(layers.LAST, j))
        for i in (0, 1)
        for j in (0, 1)
    ]
    assert found["subsets"] == 9
    assert np.ptp(cross) > 0.1, "the four differ"
    for name, expected in (
        ("both_ways", np.mean(cross)),
        *(
            (f"{way} with itself", rank_correlation(of(way, 0), of(way, 1)))
            for way in ("all layers", layers.LAST)
        ),
    ):
        # Sums of nine small integers, in float64.
        assert found[name]["spearman"] == pytest.approx(expected, abs=1e-12)
        assert found[name]["low"] < expected < found[name]["high"]


def test_outcomes_of_other_settings_are_not_taken(layers, tmp_path):
    path, outcomes = tmp_path / "agreement.json", {"all layers, seed 0": {"3": -0.5}}
    assert layers.earlier(path) == {}
    record = {"settings": layers.SETTINGS, "outcomes": outcomes}
    path.write_text(json.dumps(record))
    assert layers.earlier(path) == outcomes
    for other in ({**record["settings"], "budget": 3}, None):
        path.write_text(json.dumps(record | {"settings": other}))
        with pytest.raises(SystemExit, match="other settings"):
            layers.earlier(path)
