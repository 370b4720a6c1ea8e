"""Command lines on the files of tests/verbs/conftest.py, and what they leave."""

import json
import re

import pytest
from safetensors.numpy import load_file, save_file

from goracs_jax.cli import main
from goracs_jax.errors import InputError

N, M, BUDGET = 24, 10, 5
TEXTS = "select --train train.jsonl --valid valid.jsonl --model llm --out out"
ARRAYS = "select --train-embeddings x.npy --valid-embeddings y.npy --out out"


def run(command: str, budget: int | None = BUDGET) -> int:
    return main(command.split() + ([] if budget is None else ["--budget", str(budget)]))


def contents(folder) -> dict[str, bytes]:
    names = ("indices.npy", "coreset.jsonl", "scores.npz")
    return {name: (folder / name).read_bytes() for name in names}


def table(out):
    """The table of a manifest, without its seconds."""
    rows = json.loads((out / "manifest.json").read_text())["table"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def edit(path, change):
    path.write_text(change(path.read_text()))


def edit_config(folder, **changes):
    edit(folder / "config.json", lambda text: json.dumps(json.loads(text) | changes))


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def last_line(text):
    return text.splitlines()[-1]


def assert_refused(command, budget, capsys, message):
    """Exit code 2 and one line on standard error, beside bars and spinners."""
    capsys.readouterr()
    assert run(command, budget) == 2
    errors = capsys.readouterr().err.splitlines()
    bar = re.compile(r"\u2501|\d:\d\d:\d\d left ")  # at zero it is drawn by blanks
    lines = [line for line in errors if line.strip() and not bar.search(line)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("goracs: ")
    with pytest.raises(InputError, match=message):
        raise InputError(lines[0])


def slow_steps(seconds):
    """A program that is `goracs` with slow steps and a checkpoint after each."""
    return f"""
import sys, time
from goracs_jax.cli import main
from goracs_jax.training import finetune, run
finetune.__kwdefaults__["checkpoint_seconds"] = 0.0
step = run.Run.step
def slow(self, state):
    time.sleep({seconds})
    return step(self, state)
run.Run.step = slow
sys.exit(main(sys.argv[1:]))
"""
