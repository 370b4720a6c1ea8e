"""`goracs compare` again: what is found, what was stopped, and what has changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import edit, run, slow_steps
from comparing import (
    CELLS,
    COMPARE,
    cell_of,
    cells,
    folders,
    results,
)

from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.inputs import CompareInputs
from goracs_jax.comparison.trial import folder_of
from goracs_jax.jobs import evaluate
from goracs_jax.jobs.evaluate import EvaluateConfig
from goracs_jax.jobs.finetune import TrainConfig
from goracs_jax.settings import Compare, Evaluate


@pytest.fixture(scope="module")
def shared(compared):
    return compared


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
