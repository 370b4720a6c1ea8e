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
import tiny
from commands import edit, run, slow_steps
from comparing import (
    CELLS,
    COMPARE,
    cell_of,
    cells,
    comparison,
    folders,
    results,
)

from goracs_jax.comparison.cells import folder_of
from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.drawn import Draw
from goracs_jax.comparison.flags import training_of
from goracs_jax.comparison.inputs import CompareInputs
from goracs_jax.jobs import evaluate
from goracs_jax.jobs.evaluate import EvaluateConfig
from goracs_jax.runs.opened import Pool
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
    assert "norms-1.npy, elsewhere/out/shared/errors-1.npy already done" in printed
    assert "to do, into elsewhere/out/shared/norms-2.npy, " in printed
    assert "random, budget 4, seed 0: done, elsewhere/out/cells/" in printed
    assert "random, budget 6, seed 0: to do" in printed


def test_another_input_is_another_cell(files, capsys):
    edit(files / "test.jsonl", lambda text: text.replace("tree 50", "tree 70"))
    assert run(COMPARE + " --dry-run", None) == 0
    assert f"{CELLS} to do" in capsys.readouterr().out


def place_of(method, encoder="mpnet", *, given=None, **more):
    """The folder of a trial, among files that are not there.

    `given` is the --learning-rate; what else is no field of the trial is a flag.
    """
    of_trial = {name: more.pop(name) for name in Trial._fields if name in more}
    s = Compare(
        methods=(), budgets=(4,), model=Path("llm"), out=Path("out"),
        learning_rate=given, **more,
        **{name: Path(name) for name in ("train", "valid", "test")},
    )  # fmt: skip
    judged = Evaluate(task=s.task, model=s.model, out=Path("m.json"), test=s.test)
    trial = Trial(**{"lambda_": None, "budget": 4, "seed": 0} | of_trial, method=method)
    pools = (Pool([], name, Path(name)) for name in ("train", "valid"))
    rest = {
        "hashes": {"test": "test", "encoder": encoder},
        "draws": {trial.seed: Draw(*pools, None, None)},
        "training": training_of(s),
        "judging": EvaluateConfig.of(judged),
    }
    inputs = CompareInputs(
        **dict.fromkeys(CompareInputs._fields) | rest  # pyright: ignore
    )
    return lambda **revision: folder_of(s, inputs, trial, **revision)


def test_an_encoder_names_all_trials_that_choose():
    """POO is in the embeddings' units, whatever the method looks at."""
    for method in ("random", "error", "goracs:by-label", "full"):
        one, two = (place_of(method, e)().folder for e in ("mpnet", "bert"))
        assert (one == two) == (method == "full")


def test_what_nothing_new_is_asked_of_keeps_its_name(tmp_path):
    """What a trial of the first seed depends on is what it was in version 0.6.0."""
    found = place_of("goracs", lambda_=0.1, steps=30)().inputs
    assert found["gradients_seed"] == 0
    assert found.keys() == {
        *("revision", "method", "lambda_", "budget", "seed", "train", "valid", "test"),
        *("encoder", "dtype", "labels", "training", "lora", "task", "rank_by", "beams"),
        *("max_new_tokens", "gradients_seed"),
    }
    assert found["training"].keys() == {
        *("learning_rate", "epochs", "steps", "keep", "batch_size", "warmup_steps"),
        *("patience", "valid_every", "weight_decay", "max_grad_norm"),
    }
    # Another seed is another fresh adapter, where norms are read and none is given.
    gradients_seed = lambda method, weight, **settings: place_of(
        method, lambda_=weight, seed=3, steps=30, **settings
    )().inputs.get("gradients_seed")
    assert gradients_seed("goracs", 0.1) == 3
    assert gradients_seed("goracs", 0.0) is None
    assert gradients_seed("error", None) == 0
    adapter = tiny.write_adapter(tmp_path / "peft")
    assert gradients_seed("goracs", 0.1, adapter=adapter) == 0


def test_a_tuned_rate_is_the_rate_that_is_given():
    tuned = place_of("random", learning_rate=1e-3)()
    assert tuned.folder == place_of("random", given=1e-3)().folder
    assert tuned.folder != place_of("random", given=2e-3)().folder


def test_trials_of_equal_tokens_are_named_by_them():
    """The steps that follow from them, and the count that checks need, are not."""
    one, two, other = (
        place_of("random", tokens=n, warmup_steps=w)().inputs
        for n, w in ((500, 2), (500, 9), (501, 2))
    )
    assert one["training"]["tokens"] == 500
    assert one["training"] == two["training"] | {"warmup_steps": 2}
    assert one["training"] | {"tokens": 501} == other["training"]
    assert one["training"]["steps"] is None
    assert "tokens" not in place_of("random", steps=30)().inputs["training"]


def test_a_raised_revision_is_another_trial():
    place = place_of("random")
    now = place().inputs["revision"]
    assert place().folder == place(revision=now).folder
    assert place().folder != place(revision=now + 1).folder


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


def test_seconds_of_several_machines_are_no_sum(files):
    table = files / "out" / "table.md"
    assert "several machines" not in table.read_text()
    path = folders(files, "goracs")[0] / "cell.json"
    made = json.loads(path.read_text())
    made["chosen_on"]["kind"] = "another"
    path.write_text(json.dumps(made))
    assert run(COMPARE, None) == 0
    assert "Seconds are those of several machines" in table.read_text()


def test_models_of_another_kind_of_device_are_left_out(files):
    table = files / "out" / "table.md"
    (folder,) = folders(files, "full")
    path = folder / "cell.json"
    made = json.loads(path.read_text())
    made["device"]["kind"] = "another"
    path.write_text(json.dumps(made))
    assert run(COMPARE, None) == 0
    assert "Left out are: full, budget 10, seed 0 (another)." in table.read_text()
    found = comparison(files)
    assert {row["method"] for row in found["rows"]} == {"random", "goracs"}
    assert len(found["cells"]) == CELLS - 1


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
