"""Several budgets and lambdas in one run: the same files as runs of their own."""

import json

import numpy as np
import pytest
from commands import ARRAYS, TEXTS, assert_refused, run, table

SWEEP = ARRAYS + " --grad-norms g.npy --lambda 0,0.3"
CELLS = [(3, 0.0), (5, 0.0), (3, 0.3), (5, 0.3)]


def folder(budget, lambda_):
    return f"budget-{budget}-lambda-{lambda_:g}"


def same_results(one, two):
    for name in ("indices.npy", "scores.npz"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert table(one) == table(two)


def test_every_cell_is_a_run_of_its_own(arrays, capsys):
    assert run(SWEEP, budget="3,5") == 0
    out = arrays / "out"
    names = {path.name for path in out.iterdir()}
    assert names == {
        *(folder(*cell) for cell in CELLS), "stages", "summary.json", "summary.png",
    }  # fmt: skip
    assert (out / "summary.png").read_bytes().startswith(b"\x89PNG")
    cells = json.loads((out / "summary.json").read_text())["cells"]
    assert [(cell["budget"], cell["lambda"]) for cell in cells] == CELLS
    printed = capsys.readouterr().out
    for (budget, lambda_), cell in zip(CELLS, cells, strict=True):
        path = out / cell["folder"]
        manifest = json.loads((path / "manifest.json").read_text())
        config = manifest["config"]
        assert (config["budget"], config["lambda_"]) == (budget, lambda_)
        assert config["out"] == f"out/{folder(budget, lambda_)}"
        assert cell["objective"] == manifest["poo"]
        assert cell["lower_bound"] <= cell["objective"]
        assert f"{cell['objective']:.4f}" in printed
        alone = f"{ARRAYS} --grad-norms g.npy --lambda {lambda_}"
        assert run(alone.replace("--out out", "--out alone"), budget=budget) == 0
        same_results(path, arrays / "alone")


def test_texts_are_embedded_once_for_all_cells(files, monkeypatch):
    greedy = TEXTS + " --method greedy"
    assert run(greedy + " --lambda 0,0.3", budget="3,5") == 0
    stages = [path.name for path in (files / "out" / "stages").iterdir()]
    for name in ("training embeddings", "validation embeddings", "gradient-norms"):
        assert sum(stage.startswith(name) for stage in stages) == 1
    # A single run in the same folder finds its stages.
    monkeypatch.setattr("goracs_jax.jobs.select.chooser", None)
    assert run(greedy + " --lambda 0.3", budget=5) == 0
    out = files / "out"
    same_results(out, out / folder(5, 0.3))
    assert (out / "coreset.jsonl").read_bytes() == (
        out / folder(5, 0.3) / "coreset.jsonl"
    ).read_bytes()


def test_an_interrupted_run_goes_on(arrays, monkeypatch, capsys):
    from goracs_jax.jobs import select as cells

    made = []
    chooser = cells.chooser

    def counted(*arguments, stop=None, **keywords):
        choose = chooser(*arguments, **keywords)

        def cell(budget, lambda_):
            if len(made) == stop:
                raise KeyboardInterrupt
            made.append((keywords["method"], budget, lambda_))
            return choose(budget, lambda_)

        return cell

    stopped = lambda *a, **k: counted(*a, stop=3, **k)
    monkeypatch.setattr(cells, "chooser", stopped)
    assert run(SWEEP + " --method greedy", budget="3,5") == 130
    # What was finished can be used.
    assert (arrays / "out" / folder(5, 0.0) / "manifest.json").exists()
    assert not (arrays / "out" / "summary.json").exists()
    capsys.readouterr()
    assert run(SWEEP + " --method greedy --dry-run", budget="3,5") == 0
    printed = capsys.readouterr().out
    assert f"{folder(3, 0.0)}: selection greedy: done" in printed
    assert f"{folder(3, 0.3)}: selection greedy: to do" in printed
    monkeypatch.setattr(cells, "chooser", counted)
    assert run(SWEEP + " --method greedy", budget="3,5") == 0
    assert len(made) == len(set(made)) == 2 * len(CELLS)  # nothing twice
    monkeypatch.setattr(cells, "chooser", None)
    assert run(SWEEP + " --method greedy", budget="3,5") == 0


def test_a_config_file_may_list(arrays):
    (arrays / "c.yaml").write_text("budget: [3, 5]\nlambda: 0,0.3\nmethod: random\n")
    command = ARRAYS + " --grad-norms g.npy --config c.yaml"
    assert run(command, None) == 0
    assert all((arrays / "out" / folder(*cell)).is_dir() for cell in CELLS)


def test_a_repeated_value_is_one_cell(arrays):
    assert run(ARRAYS + " --method random", budget="5,5") == 0
    assert (arrays / "out" / "indices.npy").exists()


def test_near_lambdas_have_folders_of_their_own(arrays):
    near = float(np.nextafter(0.3, 1))
    command = f"{ARRAYS} --grad-norms g.npy --method random --lambda 0.3,{near!r}"
    assert run(command, budget=5) == 0
    assert (arrays / "out" / "budget-5-lambda-0.3").is_dir()
    assert (arrays / "out" / "budget-5-lambda-0.30000000000000004").is_dir()


@pytest.mark.parametrize(
    ("budget", "flags", "message"),
    [
        ("3,99", "", r"budget must be in \[1, 24\], got 99"),
        ("3,x", "", r"--budget must be whole numbers .*'3,x'"),
        ("3,", "", r"--budget must be whole numbers .*'3,'"),
        ("3", " --lambda 0.1,-1", r"lambda must be in \[0, 1000\], got -1"),
        ("3", " --lambda 0.1,abc", r"--lambda must be numbers .*'0\.1,abc'"),
    ],
)
def test_bad_lists(arrays, capsys, budget, flags, message):
    assert_refused(ARRAYS + " --grad-norms g.npy" + flags, budget, capsys, message)
    assert not (arrays / "out").exists()
