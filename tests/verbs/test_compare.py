"""`goracs compare` on a tiny model: the numbers, costs and files that it leaves."""

import csv
import json

import numpy as np
import pytest
from commands import run
from comparing import (
    CELLS,
    COMPARE,
    N,
    cells,
    comparison,
    example,
    folders,
    write,
)
from full_disk import assert_nothing_is_lost

from goracs_jax.jobs.evaluate import Evaluated
from goracs_jax.jobs.finetuned import Finetuned
from goracs_jax.jobs.selected import Selected

NORMS = ("norms.npy", "norms-1.npy")  # by seed


@pytest.fixture(scope="module")
def shared(compared):
    return compared


def test_numbers_are_those_of_the_predictions(shared):
    found = comparison(shared)
    assert len(found["cells"]) == len(cells(shared)) == CELLS
    by_name = {}
    for cell in found["cells"]:
        folder = shared / "out" / cell["folder"]
        lines = (folder / "metrics.predictions.jsonl").read_text().splitlines()
        ranks = [json.loads(line)["likelihood_rank"] for line in lines]
        # Ten candidates: a hit among the first five, everywhere one among ten.
        by_name.setdefault(tuple(cell["cell"].values())[:2], []).append(
            np.mean([rank < 5 for rank in ranks])
        )
        again = json.loads((folder / "metrics.json").read_text())["metrics"]
        assert again["likelihood HR@5"]["value"] == by_name[
            tuple(cell["cell"].values())[:2]
        ][-1]  # fmt: skip
    rows = {(r["method"], r["lambda"]): r for r in found["rows"] if not chosen(r)}
    assert rows.keys() == by_name.keys()
    for name, row in rows.items():
        metric = row["metrics"]["likelihood HR@5"]
        assert metric["value"] == pytest.approx(np.mean(by_name[name]))
        several = len(row["seeds"]) > 1
        assert (metric["low"] is not None) == several
        assert not several or metric["low"] <= metric["value"] <= metric["high"]
        assert row["metrics"]["likelihood HR@10"]["value"] == 1
    # Two lambdas and the one that validation chooses among them.
    (by_validation,) = [row for row in found["rows"] if chosen(row)]
    losses = {
        name[1]: r["valid_loss"] for name, r in rows.items() if name[1] is not None
    }
    assert by_validation["lambda"] == min(losses, key=losses.__getitem__)


def test_a_full_disk(files, capsys):
    """The table is written again, and its picture does not fit."""
    assert_nothing_is_lost(COMPARE, 20_000, files, capsys)


def chosen(row):
    return row["lambda_choice"] == "by validation"


def test_costs_are_those_of_the_parts(shared):
    rows = {row["name"]: row for row in comparison(shared)["rows"]}
    assert set(rows["random"]["flops"]) == {"training"}
    assert set(rows["random"]["seconds"]) == {"selection", "training"}
    assert set(rows["goracs, lambda 0"]["flops"]) == {
        "embeddings", "selection", "training"
    }  # fmt: skip
    stages = {"embeddings", "gradients", "selection", "training"}
    assert set(rows["goracs, lambda 0.3"]["seconds"]) == stages
    # The same epochs over examples of one length: 10 against 4, and 4 of validation.
    training = [rows[n]["flops"]["training"] for n in ("full", "random")]
    assert 10 / 4 > training[0] / training[1] > 1
    assert rows["full"]["flops_of_full"] == 1
    passes = [shared / "out" / "shared" / f"{name}.json" for name in NORMS]
    took = [json.loads(path.read_text())["seconds"] for path in passes]
    seconds = rows["goracs, lambda by validation"]["seconds"]
    assert seconds["gradients"] == pytest.approx(np.mean(took))
    for cell in comparison(shared)["cells"]:
        manifest = shared / "out" / cell["folder"] / "adapter" / "manifest.json"
        trained = json.loads(manifest.read_text())
        both = trained["train_seconds"] + trained["valid_seconds"]
        assert cell["seconds"]["training"] == both


def test_each_seed_has_the_norms_of_its_own_adapter(shared):
    one, two = (np.load(shared / "out" / "shared" / name) for name in NORMS)
    assert not np.allclose(one, two, rtol=1e-3)
    for folder in folders(shared, "goracs"):
        cell = json.loads((folder / "cell.json").read_text())["cell"]
        with np.load(folder / "selection" / "scores.npz") as file:
            norms = file["grad_norm"] if cell["lambda_"] else None
        if norms is not None:
            np.testing.assert_array_equal(norms, (one, two)[cell["seed"]])


def test_the_files_of_the_contract(shared):
    out = shared / "out"
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    with (out / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ends = [row["likelihood NDCG@20 high"] for row in rows]
    found = [row["metrics"]["likelihood NDCG@20"] for row in comparison(shared)["rows"]]
    # full has one seed, and so no interval.
    assert [float(x) if x else None for x in ends] == [m["high"] for m in found]
    assert ends.count("") == 1
    table = (out / "table.md").read_text()
    assert table.count("| goracs, lambda") == 3
    assert "4 test users and 2 seeds" in table


def test_results_of_a_trial_read_back(shared):
    """Selection, training and evaluation, from the files that each has left."""
    folder = folders(shared, "goracs")[0]
    record = json.loads((folder / "cell.json").read_text())
    selected = Selected.load(folder / "selection")
    assert selected.selection.objective == record["poo"]
    assert selected.method == "goracs"
    assert selected.point == (4, record["cell"]["lambda_"])
    assert len(selected.records) == len(selected.selection.indices) == 4
    tuned = Finetuned.load(folder / "adapter")
    assert tuned.valid_loss == record["valid_loss"]
    assert tuned.valid_epochs[-1] == record["epochs"]
    both = tuned.train_seconds + tuned.valid_seconds
    assert both == record["seconds"]["training"]
    evaluated = Evaluated.load(folder / "metrics.json")
    metric = evaluated.metrics["likelihood HR@5"].value
    assert evaluated.values["likelihood HR@5"].mean() == pytest.approx(metric)


def test_trials_of_equal_steps(files):
    """Four steps of 4 are four epochs of 4 examples; of 10, one and 4 more."""
    flags = COMPARE.replace("--epochs 2", "--steps 4").replace("--lambdas 0,0.3", "")
    assert run(flags + " --seeds 1 --methods full,random", None) == 0
    found = {cell["cell"]["method"]: cell for cell in comparison(files)["cells"]}
    assert {name: cell["epochs"] for name, cell in found.items()} == {
        "full": 2,
        "random": 4,
    }
    # With F for each example of one length, and V for the validation at the end:
    # 14 F + V, 16 F + V and, for an epoch, 10 F + V.
    full, random = (found[name]["flops"]["training"] for name in ("full", "random"))
    assert random - full == pytest.approx((full - found["full"]["epoch_flops"]) / 2)
    assert random > full
    for cell in found.values():
        adapter = files / "out" / cell["folder"] / "adapter"
        tuned = json.loads((adapter / "manifest.json").read_text())
        assert (tuned["steps"], tuned["keep"]) == (4, "last")
        assert cell["valid_loss"] == tuned["kept_valid_loss"]


def test_a_registered_method_is_compared_with_its_lambdas(rewarded, files):
    flags = " --methods rewarded,random --seeds 1 --out mine"
    assert run(COMPARE + flags, None) == 0
    found = json.loads((files / "mine" / "comparison.json").read_text())
    rows = [(row["method"], row["lambda_choice"]) for row in found["rows"]]
    assert rows == [
        ("rewarded", "fixed"),
        ("rewarded", "fixed"),
        ("rewarded", "by validation"),
        ("random", None),
    ]
    assert [row["lambda"] for row in found["rows"][:2]] == [0.0, 0.3]
    flops = {row["lambda"]: set(row["flops"]) for row in found["rows"][:2]}
    assert flops[0.0] == {"embeddings", "selection", "training"}
    assert flops[0.3] == {"gradients", *flops[0.0]}


def test_what_stands_beside_the_table(shared):
    notes = comparison(shared)["notes"]
    (note,) = [note for note in notes if note.startswith("coverage@10")]
    # All ten items are candidates of every example, so all of them rank among ten.
    assert "full of 10 1; " in note
    assert "goracs, lambda 0.3 of 4 1" in note
    assert any(n.startswith("What is reached without a model is not") for n in notes)


def test_clicks_by_what_gradients_say_and_by_label(files):
    for name in ("train", "valid", "test"):
        size = {"train": N, "valid": 4, "test": 6}[name]
        answers = ["Yes", "No"] * (size // 2)
        if name == "valid":
            answers = ["Yes", "Yes", "Yes", "No"]
        records = [example(i, "") | {"output": a} for i, a in enumerate(answers)]
        write(files / f"{name}.jsonl", records)
    command = COMPARE.replace("full,random,goracs", "error,random:by-label")
    command = command.replace("--lambdas 0,0.3 --seeds 2", "--seeds 1")
    assert run(command + " --task ctr --out clicks", None) == 0
    found = json.loads((files / "clicks" / "comparison.json").read_text())
    flops = {row["method"]: set(row["flops"]) for row in found["rows"]}
    assert flops["error"] == {"gradients", "training"}
    assert flops["random:by-label"] == {"training"}
    metrics = {"AUC", "log likelihood", "calibrated log likelihood"}
    assert all(set(row["metrics"]) == metrics for row in found["rows"])
    assert found["notes"][0].startswith("One seed has a value alone")
    rows = {
        cell["cell"]["method"]: np.load(
            files / "clicks" / cell["folder"] / "selection" / "indices.npy"
        )
        for cell in found["cells"]
    }
    errors = np.load(files / "clicks" / "shared" / "errors.npy")
    assert set(rows["error"]) == set(np.argsort(-errors)[:4])
    # Even rows of training are Yes, as three in four of validation.
    assert (rows["random:by-label"] % 2 == 0).sum() == 3
