"""Beside a comparison: scores without a model, one kind of device, diagnostics."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from goracs_jax.comparison.beside import without_a_model
from goracs_jax.comparison.cells import Finished, TrialFolder
from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.diagnosed import diagnosed, of_one_kind
from goracs_jax.runs.opened import read_pool


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_clicks_are_counted_as_far_as_the_files_know(tmp_path):
    rng = np.random.default_rng(0)
    liked = rng.random((40, 5)) < 0.5
    yes = rng.random(40) < liked.mean(axis=1)
    records = [
        {"instruction": "Like?", "output": "Yes" if y else "No", "user": i}
        for i, y in enumerate(yes)
    ]
    bare = read_pool(write(tmp_path / "bare.jsonl", records))
    items, units = tmp_path / "items.jsonl", np.arange(40)
    found = without_a_model("ctr", bare, bare, items, units)
    assert found.startswith("What is reached without a model is not known")
    records = [
        r | {"liked": row.tolist()} for r, row in zip(records, liked, strict=True)
    ]
    counted = read_pool(write(tmp_path / "test.jsonl", records))
    found = without_a_model("ctr", bare, counted, items, units)
    area = roc_auc_score(yes, liked.sum(axis=1))
    assert f"liked titles (AUC {area:.4f}, calibrated log likelihood -" in found
    assert "mean rating" not in found.split(". ")[0]


def test_titles_are_ranked_by_what_the_files_know(tmp_path):
    items = write(
        tmp_path / "items.jsonl",
        [
            {"item_id": name, "title": name.upper(), "interactions": count}
            for name, count in zip("abcd", (5, 3, 1, 0), strict=True)
        ],
    )
    test = [
        {"instruction": "Next?", "output": "A", "target": "a", "negatives": ["b", "c"]},
        {"instruction": "Next?", "output": "C", "target": "c", "negatives": ["b", "d"]},
    ]
    pool = read_pool(write(tmp_path / "test.jsonl", test))
    found = without_a_model("seqrec", pool, pool, items, np.arange(2))
    # p(A) = 6 / 13 and p(C) = 2 / 13; ranks 0 and 1.
    likely = (np.log(6 / 13) + np.log(2 / 13)) / 2
    ndcg = (1 + 1 / np.log2(3)) / 2
    said = f"popularity (log likelihood {likely:.4f}, NDCG@10 {ndcg:.4f}, HR@10 1.0000)"
    assert said in found
    assert "ItemKNN" not in found


def done(method, kind, tmp_path, seed=0):
    trial = Trial(method, None, 8, seed)
    rest = {"inputs": {}, "chosen_on": None, "poo": None, "valid_loss": 1.0}
    rest |= {"epochs": 1, "seconds": {}, "flops": {}, "epoch_flops": 1.0}
    finished = Finished(trial, device={"kind": kind}, predictions="", **rest)
    return TrialFolder(trial, {}, tmp_path), finished


@pytest.mark.parametrize("kinds", [("cpu", "cpu", "cpu"), ("H200", "cpu", "H200")])
def test_one_kind_of_device_is_kept(tmp_path, kinds):
    methods = ("random", "goracs", "nearest")
    trials = [done(m, k, tmp_path) for m, k in zip(methods, kinds, strict=True)]
    kept, note = of_one_kind(trials)
    if len(set(kinds)) == 1:
        assert (kept, note) == (trials, [])
    else:
        assert kept == [trials[0], trials[2]]
        assert "one kind of device (H200)" in note[0]
        assert note[0].endswith("Left out are: goracs, budget 8, seed 0 (cpu).")


def test_models_that_are_far_too_sure_are_named(tmp_path):
    trials = []
    for i, (method, slopes, spread) in enumerate(
        [
            ("random", [0.9, 0.4], 5.0),  # one half says otherwise
            ("goracs", [0.1, 0.3], 5.0),
            ("goracs", [0.4, 0.4], 5.0),
            ("nearest", [0.1, 0.1], 0.2),  # wrong margins, but small ones
        ]
    ):
        folder = tmp_path / str(i)
        folder.mkdir()
        fits = [{"a": a, "b": 0.0} for a in slopes]
        found = {"calibration": {"fits": fits, "margin_sd": spread}}
        (folder / "metrics.json").write_text(json.dumps({"diagnostics": found}))
        trials.append(done(method, "cpu", folder, seed=i))
    (note,) = diagnosed(trials)
    assert note.endswith("multiplied by: goracs of 8 (0.3, seeds: 2).")


def test_coverage_is_a_mean_over_seeds(tmp_path):
    trials = []
    for seed, share in enumerate((0.2, 0.3)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = {"exposure": {"coverage@10": share}}
        (folder / "metrics.json").write_text(json.dumps({"diagnostics": found}))
        trials.append(done("random", "cpu", folder, seed))
    (note,) = diagnosed(trials)
    assert note.endswith("of an example: random of 8 0.25.")
    assert diagnosed([done("random", "cpu", tmp_path / "lost")]) == []
