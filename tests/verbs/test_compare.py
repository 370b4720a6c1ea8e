"""`goracs compare` on a tiny model: what it leaves, resumes, says and refuses."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from commands import assert_refused, edit, run, slow_steps

from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.inputs import CompareInputs
from goracs_jax.comparison.trial import folder_of
from goracs_jax.jobs import evaluate
from goracs_jax.jobs.evaluate import EvaluateConfig, Evaluated
from goracs_jax.jobs.finetune import Finetuned, TrainConfig
from goracs_jax.jobs.selected import Selected
from goracs_jax.settings import Compare, Evaluate

TREES = ["ash", "elm", "fir", "oak", "yew", "box", "tea", "bay", "gum", "nut"]
COMPARE = (
    "compare --train train.jsonl --valid valid.jsonl --test test.jsonl --model llm "
    "--methods full,random,goracs --budgets 4 --lambdas 0,0.3 --seeds 2 --epochs 2 "
    "--batch-size 4 --warmup-steps 1 --learning-rate 0.03 --rank-by likelihood "
    "--out out"
)
CELLS = 1 + 2 * 3  # full once; random and two lambdas for each seed
N, USERS = 10, 4


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def example(i, title):
    return {"instruction": "Next?", "input": f"tree {i:02}", "output": f'"{title}"'}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A model, four files of examples of one length, and what the verb makes of it."""
    folder = tmp_path_factory.mktemp("compare")
    tiny.write_llm(folder / "llm")
    rng = np.random.default_rng(0)
    for name, size, first in (("train", N, 0), ("valid", 4, N)):
        titles = rng.choice(TREES, size)
        records = [example(first + i, title) for i, title in enumerate(titles)]
        write(folder / f"{name}.jsonl", records)
    write(
        folder / "items.jsonl",
        [{"item_id": i, "title": title} for i, title in enumerate(TREES)],
    )
    tests = []
    for i in range(6):  # two users have two examples
        target, *others = rng.permutation(len(TREES)).tolist()
        ids = {"user": i % USERS, "target": target, "negatives": others}
        tests.append(example(50 + i, TREES[target]) | ids)
    write(folder / "test.jsonl", tests)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(COMPARE, None) == 0
    return folder


def comparison(folder):
    return json.loads((folder / "out" / "comparison.json").read_text())


def results(folder):
    """All that a comparison found; seconds are never the same."""
    found = comparison(folder)
    timed = ("seconds", "total_seconds")
    rows = [{k: v for k, v in r.items() if k not in timed} for r in found["rows"]]
    return rows, found["pairs"]


def cells(folder):
    return sorted((folder / "out" / "cells").glob("*/cell.json"))


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
    record = json.loads((shared / "out" / "shared" / "norms.npy.json").read_text())
    seconds = rows["goracs, lambda by validation"]["seconds"]
    assert seconds["gradients"] == pytest.approx(record["seconds"])
    for cell in comparison(shared)["cells"]:
        manifest = shared / "out" / cell["folder"] / "adapter" / "manifest.json"
        trained = json.loads(manifest.read_text())
        both = trained["train_seconds"] + trained["valid_seconds"]
        assert cell["seconds"]["training"] == both


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


def test_a_copy_elsewhere_is_done_and_more_seeds_add_cells(files, monkeypatch, capsys):
    before = results(files)
    (files / "elsewhere").mkdir()
    for item in ("out", "llm", "train.jsonl", "valid.jsonl"):
        shutil.move(files / item, files / "elsewhere" / item)
    moved = COMPARE
    for item in ("out", "llm", "train.jsonl", "valid.jsonl"):
        moved = moved.replace(f" {item} ", f" elsewhere/{item} ")
    moved = moved.replace("--out out", "--out elsewhere/out")
    with monkeypatch.context() as patch:
        patch.setattr("goracs_jax.comparison.trial.run", None)
        patch.setattr("goracs_jax.runs.opened.load_decoder", None)
        assert run(moved, None) == 0
    assert results(files / "elsewhere") == before
    capsys.readouterr()
    more = moved.replace("--seeds 2", "--seeds 3 --micro-batch-tokens 512 --dry-run")
    assert run(more.replace("--budgets 4", "--budgets 4,6"), None) == 0
    printed = capsys.readouterr().out
    assert f"{CELLS + 3 + 9} trials: {CELLS} done, {3 + 9} to do" in printed
    assert "norms.npy, " in printed
    assert "random, budget 4, seed 0: done, elsewhere/out/cells/" in printed
    assert "random, budget 6, seed 0: to do" in printed


def test_another_input_is_another_cell(files, capsys):
    edit(files / "test.jsonl", lambda text: text.replace("tree 50", "tree 70"))
    assert run(COMPARE + " --dry-run", None) == 0
    assert f"{CELLS} to do" in capsys.readouterr().out


def place_of(method, encoder="mpnet", **settings):
    """The folder of a trial, among files that are not there."""
    s = Compare(
        methods=(), budgets=(4,), model=Path("llm"), out=Path("out"), **settings,
        **{name: Path(name) for name in ("train", "valid", "test")},
    )  # fmt: skip
    training = TrainConfig.of(s, 0)
    judged = Evaluate(task=s.task, model=s.model, out=Path("m.json"), test=s.test)
    judging = EvaluateConfig.of(judged)
    rest = {"hashes": {"encoder": encoder}, "training": training, "judging": judging}
    inputs = CompareInputs(
        **dict.fromkeys(CompareInputs._fields) | rest  # pyright: ignore
    )
    return lambda **more: folder_of(s, inputs, Trial(method, None, 4, 0), **more)


def test_an_encoder_names_all_trials_that_choose():
    """POO is in the embeddings' units, whatever the method looks at."""
    for method in ("random", "error", "goracs:by-label", "full"):
        one, two = (place_of(method, e)().folder for e in ("mpnet", "bert"))
        assert (one == two) == (method == "full")


def test_a_raised_revision_is_another_trial():
    place = place_of("random")
    assert place().folder == place(revision=2).folder != place(revision=3).folder


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


def test_stopped_and_started_again(files, monkeypatch):
    """Two cells are lost, and the second of them is stopped between its steps."""
    before = results(files)
    lost = folders(files, "random")
    for folder in lost:
        shutil.rmtree(folder)
    kept = {path: path.stat().st_mtime_ns for path in cells(files)}
    whole = evaluate.run

    def stop(inputs, config, work):
        if work.parent.name == lost[1].name:
            raise KeyboardInterrupt
        return whole(inputs, config, work)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "run", stop)
        assert run(COMPARE, None) == 130
    assert not (files / "out" / "comparison.json").exists()
    # Its training is done, and that of no other cell is looked at.
    monkeypatch.setattr("goracs_jax.jobs.finetune.train_adapter", None)
    assert run(COMPARE, None) == 0
    assert results(files) == before
    assert {p: p.stat().st_mtime_ns for p in cells(files) if p in kept} == kept


def test_a_table_of_what_is_finished(files, monkeypatch, capsys):
    rows, pairs = results(files)
    shutil.rmtree(folders(files, "random")[1])
    monkeypatch.setattr("goracs_jax.comparison.trial.run", None)
    monkeypatch.setattr("goracs_jax.runs.opened.load_decoder", None)
    assert run(COMPARE + " --finished", None) == 0
    assert f"{CELLS - 1} of {CELLS} trials are done" in capsys.readouterr().out
    now, now_pairs = results(files)
    seeds = {row["name"]: row["seeds"] for row in now}
    assert (seeds["random"], seeds["goracs, lambda 0"]) == ([0], [0, 1])
    table = (files / "out" / "table.md").read_text()
    assert "Missing: random, budget 4, seed 1." in table
    others = lambda table: [row for row in table if row["method"] != "random"]
    assert others(now) == others(rows)
    assert {tuple(pair["seeds"]) for pair in now_pairs} == {(0,)}
    assert len(now_pairs) == len(pairs)


@pytest.mark.parametrize("key", ["device", "chosen_on"])
def test_seconds_of_several_machines_are_no_sum(files, key):
    table = files / "out" / "table.md"
    assert "several machines" not in table.read_text()
    path = folders(files, "goracs")[0] / "cell.json"
    made = json.loads(path.read_text())
    made[key]["kind"] = "another"
    path.write_text(json.dumps(made))
    assert run(COMPARE, None) == 0
    assert "Seconds are those of several machines" in table.read_text()


def folders(files, method):
    """Of the cells of a method, by seed."""
    mine = [path for path in cells(files) if cell_of(path)["method"] == method]
    mine.sort(key=lambda path: cell_of(path)["seed"])
    return [path.parent for path in mine]


def cell_of(path):
    return json.loads(path.read_text())["cell"]


@pytest.mark.slow
def test_killed_in_a_training(files):
    """SIGKILL after the first step of the only cell that is left to do."""
    before = results(files)
    (folder,) = [
        path.parent for path in cells(files) if cell_of(path)["method"] == "full"
    ]
    weights = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(folder)
    process = subprocess.Popen(
        [sys.executable, "-c", slow_steps(1.0), *COMPARE.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if list(folder.glob("adapter/stages/finetune-*/checkpoints/1")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "cell.json").exists()
    assert run(COMPARE, None) == 0
    assert (folder / "adapter" / "adapter_model.safetensors").read_bytes() == weights
    assert results(files) == before


MISTAKES = {
    "unknown method": (" --methods random,best", r"--methods must be among .*'best'"),
    "all by label": (" --methods full:by-label", r"--methods must .*'full:by-label'"),
    # Every title is a class of its own, and those of validation are few.
    "classes": (" --methods itra:by-label --budgets 10", r"validation lacks classes"),
    "budget": (" --budgets 4,99", r"budget must be in \[1, 10\], got 99"),
    "no weight": (" --methods random", r"--lambdas are for goracs, greedy, itra"),
    "lambda": (" --lambdas 0,-1", r"lambda must be in \[0, 1000\], got -1"),
    "seeds": (" --seeds 0", r"--seeds must be at least 1, got 0"),
    "too many seeds": (
        f" --seed {2**32 - 1}",
        r"--seeds must be at most 1 with --seed 4294967295, got 2",
    ),
    "alpha": (" --alpha nan", r"LoRA alpha must be finite, got nan"),
    "full seeds": (" --full-seeds 3", r"--full-seeds must be in \[1, 2\]"),
    "file": (" --out test.jsonl", r"--out test\.jsonl is a file: give a folder"),
    "inside": (" --out llm/out", r"lies in the input llm"),
    "epochs": (" --epochs 0", r"epochs must be at least 1, got 0"),
    "beams": (" --beams 0", r"--beams must be at least 1, got 0"),
    "targets": (" --targets c_attn", r"got c_attn"),
    "no step": (" --epochs 1 --batch-size 64", r"nothing would train"),
    "no items": (" --items none.jsonl", r"none\.jsonl does not exist"),
    "no model": (" --model none", r"none does not exist"),
    "none done": (" --seed 7 --finished", r"no finished trial .* leave --finished out"),
    "task": (" --task ctr", r"test\.jsonl:1: .*Yes or No"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_before_any_work(files, capsys, monkeypatch, name):
    monkeypatch.setattr("goracs_jax.comparison.trial.run", None)
    monkeypatch.setattr("goracs_jax.comparison.shared.run", None)
    flags, message = MISTAKES[name]
    assert_refused(COMPARE + flags, None, capsys, message)


def test_one_user_leaves_no_interval(files, capsys):
    edit(files / "test.jsonl", lambda text: text.splitlines()[0] + "\n")
    assert_refused(COMPARE, None, capsys, r"test\.jsonl has one user only")


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
    metrics = {"AUC", "log likelihood"}
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
