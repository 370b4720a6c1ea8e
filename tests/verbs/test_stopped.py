"""A search that ends early writes its best subset, and never counts as done."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import ARRAYS, BUDGET, assert_refused, run

from goracs_jax.selection.search import stages
from goracs_jax.settings.outputs import SELECTED

ROOT = Path(__file__).parents[2]
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def manifest(out="out"):
    return json.loads((Path(out) / "manifest.json").read_text())


def kept(out="out") -> set[str]:
    """The methods whose selections count as done."""
    done = Path(out).glob("stages/selection *-*/done.json")
    return {path.parent.name.split()[1].rsplit("-", 1)[0] for path in done}


def assert_whole(out="out"):
    """All files of a selection are there, and nothing that is half-written."""
    names = {path.name for path in Path(out).iterdir()}
    of_texts = {name for name in SELECTED if name.startswith("coreset")}
    assert names == {*SELECTED, "stages"} - of_texts - {"dataset_info.json"}
    rows = np.load(Path(out) / "indices.npy")
    assert len(set(rows.tolist())) == BUDGET
    return rows


def signalled(monkeypatch, number, times=1):
    """Have the first exchange of groups meet signals."""
    exchange = stages.group_exchange

    def stage(problem, rows, **more):
        for _ in range(times):
            signal.raise_signal(number)
        while not problem.limit.asked():
            time.sleep(0.01)
        return exchange(problem, rows, **more)

    monkeypatch.setattr(stages, "group_exchange", stage)


def test_time_limit(arrays, capsys):
    assert run(f"{ARRAYS} --time-limit 0.001s") == 0
    assert "the search was stopped" in capsys.readouterr().out
    first = assert_whole()
    found = manifest()
    assert (found["stopped"], found["converged"]) == (True, False)
    assert found["config"]["time_limit"] == "0.001s"
    assert found["lower_bound"] is None
    assert kept() == {"random"}
    # The same folder without a limit, and with one that is long enough.
    assert run(ARRAYS) == 0
    assert "stopped" not in capsys.readouterr().out
    assert kept() == {"random", "goracs"}
    assert manifest()["stopped"] is False
    assert manifest()["poo"] <= found["poo"]
    whole = assert_whole()
    assert run(f"{ARRAYS.replace('--out out', '--out long')} --time-limit 1h") == 0
    assert kept("long") == {"random", "goracs"}
    assert assert_whole("long").tolist() == whole.tolist() != first.tolist()
    # What is done is read back, whatever the limit.
    assert run(f"{ARRAYS} --time-limit 0.001s") == 0
    assert manifest()["stopped"] is False


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_writes_the_best_so_far(arrays, capsys, monkeypatch, number):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        signalled(patch, number)
        assert run(f"{ARRAYS} --budget 3,{BUDGET}", None) == SIGNALS[number]
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1] == "goracs: stopped; the best subset so far is written."
    assert signal.getsignal(number) is before
    # The larger budget came first; the other was not begun.
    (out,) = Path("out").glob("budget-*")
    assert len(np.load(out / "indices.npy")) == BUDGET
    assert manifest(out)["stopped"] is True
    assert manifest(out)["lower_bound"] <= manifest(out)["poo"]
    assert not Path("out/summary.json").exists()
    assert kept() == {"random"}
    assert run(f"{ARRAYS} --budget 3,{BUDGET}", None) == 0
    cells = json.loads(Path("out/summary.json").read_text())["cells"]
    assert [cell["budget"] for cell in cells] == [3, BUDGET]
    assert manifest(out)["stopped"] is False


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_at_once(arrays, number):
    """Also where no handler of Python can run, as in a program of XLA."""
    code = (
        "import signal, time\n"
        "from goracs_jax.runs.stopping import Stopping\n"
        "with Stopping().listening():\n"
        f"    signal.raise_signal({int(number)})\n"
        f"    signal.raise_signal({int(number)})\n"
        "    time.sleep(600)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=300)
    assert done.returncode == SIGNALS[number]


def test_ctrl_c_before_the_search_ends_the_run(arrays, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("goracs_jax.jobs.select.load", interrupted)
    assert run(ARRAYS) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert not Path("out/manifest.json").exists()


def test_effort_and_bound_are_searches_of_their_own(arrays):
    for flags in ("", "--effort 0.5", "--bound none", "--effort 1 --bound full"):
        assert run(f"{ARRAYS} {flags}") == 0
        found = manifest()
        assert (found["lower_bound"] is None) == ("none" in flags)
        assert found["stopped"] is False
    names = {path.name for path in Path("out/stages").glob("selection goracs-*")}
    assert len(names) == 3  # the last is the first


MISTAKES = {
    "effort": ("--effort 0", r"effort must be in \[0\.1, 10\], got 0\.0"),
    "much effort": ("--effort 1e9", r"effort must be in \[0\.1, 10\]"),
    "no number": ("--effort high", "--effort must be a number, got 'high'"),
    "no bound": ("--bound fast", "--bound must be one of none, quick, full"),
    "no unit": ("--time-limit 90", "--time-limit must be as 90s, 60m or 2h, got '90'"),
    "no time": ("--time-limit 0s", "--time-limit must be as"),
    "no search": ("--method random --effort 2", "method random has no search to scale"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(arrays, capsys, name):
    flags, message = MISTAKES[name]
    assert_refused(f"{ARRAYS} {flags}", BUDGET, capsys, message)
    assert not Path("out").exists()
