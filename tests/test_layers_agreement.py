"""How the ranks of subsets by adapters in few layers and in all are compared."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def layers():
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import layers_agreement

        yield layers_agreement
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            sys.modules.pop(name)


def rank_correlation(x, y):
    """Pearson's correlation of ranks, of numbers no two of which are equal."""
    ranks = [[sorted(z).index(value) for value in z] for z in (x, y)]
    return np.corrcoef(ranks)[0, 1]


def test_ways_are_compared_by_the_ranks_of_subsets_that_all_have(layers):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=9)
    cells, values, number = {}, {}, 0
    for way, (seeds, *_) in layers.WAYS.items():
        for seed in seeds:
            name = f"{way}, seed {seed}"
            values[name] = truth + rng.normal(size=9)
            cells[name] = {
                # Subset 10 comes after 2, which as texts it does not.
                str(subset): {"AUC": float(value), "seconds": 10.0 * number + place}
                for place, (subset, value) in enumerate(
                    zip([0, 1, 2, 3, 4, 5, 6, 10, 11], values[name], strict=True)
                )
            }
            number += 1
    cells["last:2, seed 1"]["19"] = {"AUC": 3.0, "seconds": 1e6}
    found = layers.agreement(cells)
    assert found["subsets"] == 9
    assert found["ways"]["all layers"] == {"seconds": 4.0}
    plain = values["all layers, seed 0"]
    for way in ("last:6", "last:2"):
        mine = [values[f"{way}, seed {seed}"] for seed in (0, 1)]
        each = [rank_correlation(plain, x) for x in mine]
        for key, expected in (
            ("with all layers", np.mean(each)),
            ("with itself", rank_correlation(*mine)),
        ):
            got = found["ways"][way][key]
            # Sums of nine small integers, in float64.
            assert got["value"] == pytest.approx(expected, abs=1e-12)
            assert got["low"] < expected < got["high"]


def test_subsets_differ_in_the_share_of_right_answers(layers):
    class Bed:
        planted = np.arange(2800) % 5 < 3

    shares = []
    for number in range(layers.SUBSETS):
        rows = layers.subset(Bed, number)
        assert len(set(rows.tolist())) == layers.BUDGET
        shares.append(Bed.planted[rows].mean())
    assert shares[0] == 0.4
    assert shares[-1] == 1.0
    assert (np.diff(shares) > 0).all()


def test_outcomes_of_other_settings_are_not_taken(layers, tmp_path):
    path, cells = tmp_path / "agreement.json", {"last:2, seed 0": {"3": {"AUC": 0.5}}}
    assert layers.earlier(path) == {}
    record = {"settings": layers.SETTINGS, "cells": cells}
    path.write_text(json.dumps(record))
    assert layers.earlier(path) == cells
    for other in ({**record["settings"], "budget": 3}, None):
        path.write_text(json.dumps(record | {"settings": other}))
        with pytest.raises(SystemExit, match="other settings"):
            layers.earlier(path)
