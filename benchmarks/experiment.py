"""Does a coreset fine-tune a better recommender? `goracs compare` on MovieLens-100K.

    python benchmarks/experiment.py ctr       will the user like one more movie?
    python benchmarks/experiment.py seqrec    which movie comes next?
    python benchmarks/experiment.py games --input FILE.csv    which video game?

    [--out DIR] [flags of goracs compare, such as --seeds 10 or --finished]

The model is SmolLM2-135M, a history has five items, and all models are trained for the
same number of steps. The newest interaction of each user is for testing and the one
before it for validation. The pool, the validation set and the test set are drawn with a
fixed seed. The study `games` takes Amazon Video Games, which no package provides, as a
CSV with the columns user_id, item_id, timestamp and title.

DIR keeps gradient norms, embeddings and finished trials, so that a later run with more
seeds, budgets or methods continues from there. What `compare` keeps of the trials of
ctr is stored in results/study_ctr.parquet as well (see kept.py). The script writes
results/study_NAME.json: the rows, paired differences and notes of `compare`, and the
metrics of the untrained model. Its table is DIR/compare/table.md.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import RESULTS, goracs, write
from kept import pack, unpack

from goracs_jax.data.demo import fetch
from goracs_jax.llm.prompts import Task

METHODS = "full,random,goracs,itra,grad-norm,error,nearest,k-center"
TRAINING = {
    "--steps": "200",
    "--keep": "last",
    "--batch-size": "16",
    "--learning-rate": "1e-3",
    "--budgets": "256",
    "--seeds": "10",
}


class Study(NamedTuple):
    """The task, what an item is called, the sizes that are drawn, what is compared."""

    task: Task
    noun: str
    drawn: Mapping[str, int]
    methods: str
    lambdas: str
    flags: tuple[str, ...] = ()


STUDIES = {
    "ctr": Study(
        "ctr",
        "movie",
        {"train": 4000, "valid": 400, "test": 943},
        f"{METHODS},random:by-label,goracs:by-label",
        "0,0.1",
    ),
    "seqrec": Study(
        "seqrec",
        "movie",
        {"train": 4000, "valid": 400, "test": 500},
        METHODS,
        "0,0.1",
        ("--rank-by", "likelihood"),
    ),
    "games": Study(
        "seqrec",
        "video game",
        {"train": 2000, "valid": 150, "test": 150},
        "random,goracs",
        "0",
        ("--rank-by", "likelihood"),
    ),
}


def draw(drawn: Mapping[str, int], folder: Path, out: Path) -> None:
    """Draw some lines of each file with a fixed seed and keep their order."""
    rng = np.random.default_rng(0)
    for name, size in drawn.items():
        lines = (folder / f"{name}.jsonl").read_text().splitlines(keepends=True)
        rows = np.sort(rng.choice(len(lines), size, replace=False))
        (out / f"{name}.jsonl").write_text("".join(lines[row] for row in rows))


def arguments(study: Study, out: Path, model: Path) -> tuple[list, list]:
    """Return the flags of `goracs compare` that name the data, and of `evaluate`."""
    judged = ["--task", study.task, "--test", out / "test.jsonl", "--model", model]
    judged += ["--items", out / "data" / "items.jsonl", *study.flags]
    pools = [
        word for p in ("train", "valid") for word in (f"--{p}", out / f"{p}.jsonl")
    ]
    return [*judged, *pools], judged


def run(name: str, out: Path, raw: Sequence, more: Sequence[str]) -> None:
    """Prepare the data, compare the methods, write the figures."""
    study, files = STUDIES[name], fetch()
    kept, compared = RESULTS / f"study_{name}.parquet", out / "compare"
    goracs(
        *["prepare", "--task", study.task, "--split", "leave-one-out", "--history", 5],
        *["--noun", study.noun, "--input", *(raw or [files.interactions.parent])],
        *["--out", out / "data"],
    )
    draw(study.drawn, out / "data", out)
    if kept.exists():
        unpack(kept, compared / "cells")
    given, judged = arguments(study, out, files.model)
    training = [word for pair in TRAINING.items() for word in pair]
    goracs(
        *["compare", *given, "--encoder", files.encoder, "--out", compared],
        *["--methods", study.methods, "--lambdas", study.lambdas, *training, *more],
    )
    if study.task == "ctr":  # a seqrec prediction is large: one number per candidate
        pack(compared / "cells", kept)
    goracs("evaluate", *judged, "--out", out / "untrained.json")
    record = json.loads((compared / "comparison.json").read_text())
    figures = {key: record[key] for key in ("rows", "pairs", "users", "notes", "cells")}
    figures["untrained"] = json.loads((out / "untrained.json").read_text())["metrics"]
    sizes = {"task": study.task, "drawn": study.drawn, "training": TRAINING}
    print(write(f"study_{name}", sizes | figures))


def main() -> None:
    """Read the flags; those that are not known here are for `goracs compare`."""
    parser = argparse.ArgumentParser(description=str(__doc__), allow_abbrev=False)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--input", type=Path, help="raw data of games")
    parser.add_argument("--out", type=Path)
    options, more = parser.parse_known_args()
    if (options.study == "games") != bool(options.input):
        parser.error(
            "--input goes with games: a CSV of user_id, item_id, timestamp, title"
        )
    raw = [options.input, "--format", "csv"] if options.input else []
    run(options.study, options.out or Path(f"study_{options.study}"), raw, more)


if __name__ == "__main__":
    main()
