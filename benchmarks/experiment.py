"""Does a coreset fine-tune a better recommender? `goracs compare` on MovieLens-100K.

    python benchmarks/experiment.py ctr            will the user like one more movie?
    python benchmarks/experiment.py ctr_users      the same, one test example per user
    python benchmarks/experiment.py seqrec         which movie comes next?
    python benchmarks/experiment.py seqrec_answer  the same, without the prompt's loss
    python benchmarks/experiment.py ctr_long       ctr_users, trained until it converges
    python benchmarks/experiment.py seqrec_long    seqrec, trained until it converges
    python benchmarks/experiment.py games --input FILE.csv        which video game?

    [--out DIR] [--budgets N,N] [--seeds S] [--finished]

The model is SmolLM2-135M and a history has five items, so that the short studies run
on two cores. The long ones have larger pools and need a GPU. The study `games` takes
Amazon Video Games, which no package provides, as a CSV with the columns user_id,
item_id, timestamp and title.

The newest interactions are for testing and those before them for validation; in all
studies but ctr these are the two newest interactions of every user. The pool, the
validation set and the test set are drawn with a fixed seed. Every method selects from
the pool, LoRA is trained on each selection, and the metrics are taken on the test
examples. The untrained model (in float32) is evaluated, too.

DIR keeps gradient norms, embeddings and finished trials, so that a later run with more
seeds, budgets or methods continues from there. What `compare` keeps of the trials of a
ctr study is stored in results/experiment_NAME.parquet as well (see kept.py).
--finished reports the trials that are finished and starts none. The script writes
results/experiment_NAME.json and .png.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import RESULTS, goracs, write
from kept import pack, unpack
from outcomes import (
    against_outcomes,
    bias_against,
    cells_of,
    machines_of,
    over_seeds,
    popularity,
    ranks,
    users_of,
)

from goracs_jax.data.demo import fetch
from goracs_jax.llm.prompts import Task

# Every model is trained for the same few epochs.
BRIEF = {
    "--epochs": "3",
    "--valid-every": "3",
    "--batch-size": "8",
    "--learning-rate": "1e-3",
    "--warmup-steps": "5",
}
# Training stops when the validation loss has not fallen for three epochs.
LONG = {
    "--epochs": "30",
    "--patience": "3",
    "--batch-size": "16",
    "--learning-rate": "1e-3",
    "--warmup-steps": "5",
    "--dtype": "bfloat16",
}


class Study(NamedTuple):
    """The task and its split, the sizes that are drawn, the methods, the training."""

    task: Task
    split: str
    drawn: Mapping[str, int]
    methods: str
    lambdas: str
    training: Mapping[str, str] = BRIEF
    flags: tuple[str, ...] = ()


SEQREC = Study(
    "seqrec",
    "leave-one-out",
    {"train": 600, "valid": 100, "test": 200},
    "full,random,goracs,itra,grad-norm,error,nearest,k-center",
    "0,0.1,0.5",
    flags=("--rank-by", "generation", "--max-new-tokens", "32"),
)
STUDIES = {
    "ctr": Study(
        "ctr",
        "global",
        {"train": 400, "valid": 60, "test": 250},
        "full,random,random:by-label,goracs,goracs:by-label,itra,grad-norm,error,"
        "nearest,k-center",
        "0,0.05,0.1,0.5",
    ),
    "ctr_users": Study(
        "ctr",
        "leave-one-out",
        {"train": 1000, "valid": 150, "test": 400},
        "full,random,random:by-label,goracs,goracs:by-label,itra,k-center",
        "0,0.1",
    ),
    "seqrec": SEQREC,
    "seqrec_answer": SEQREC._replace(
        methods="random,goracs,grad-norm",
        lambdas="0,0.1",
        training=BRIEF | {"--labels": "answer"},
    ),
    "ctr_long": Study(
        "ctr",
        "leave-one-out",
        {"train": 4000, "valid": 400, "test": 943},
        "full,random,goracs,goracs:by-label,itra,grad-norm,error,nearest,k-center",
        "0,0.05,0.1,0.5",
        LONG,
    ),
    "seqrec_long": Study(
        "seqrec",
        "leave-one-out",
        {"train": 4000, "valid": 400, "test": 500},
        "random,goracs,k-center",
        "0,0.1",
        LONG,
        ("--rank-by", "likelihood"),
    ),
    "games": Study(
        "seqrec",
        "leave-one-out",
        {"train": 2000, "valid": 150, "test": 150},
        "random,goracs",
        "0",
        LONG | {"--epochs": "12"},
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


def main() -> None:
    """Prepare the data, compare the methods, write the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--input", type=Path, help="raw data of games")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", default="64")
    parser.add_argument("--finished", action="store_true")
    options = parser.parse_args()
    if (options.study == "games") != bool(options.input):
        parser.error(
            "--input goes with games: a CSV of user_id, item_id, timestamp, title"
        )
    study, name = STUDIES[options.study], f"experiment_{options.study}"
    out, files = options.out or Path(name), fetch()
    task, compared = ("--task", study.task), out / "compare"
    kept, trials = RESULTS / f"{name}.parquet", compared / "cells"
    prepared = ["prepare", *task, "--split", study.split, "--history", 5]
    raw = (
        [options.input, "--format", "csv"]
        if options.input
        else [files.interactions.parent]
    )
    goracs(*prepared, "--input", *raw, "--out", out / "data")
    draw(study.drawn, out / "data", out)
    items = ["--items", out / "data" / "items.jsonl"] if study.task == "seqrec" else []
    if kept.exists():
        unpack(kept, trials)
    pools = [w for p in study.drawn for w in (f"--{p}", out / f"{p}.jsonl")]
    training = [word for pair in study.training.items() for word in pair]
    goracs(
        *["compare", *task, "--methods", study.methods, "--lambdas", study.lambdas],
        *["--budgets", options.budgets, "--seeds", options.seeds, *training],
        *["--model", files.model, "--encoder", files.encoder, "--out", compared],
        *[*pools, *items, *study.flags, *options.finished * ["--finished"]],
    )
    if study.task == "ctr":  # a seqrec prediction is large: one number per candidate
        pack(trials, kept)
    untrained = out / "untrained.json"
    judged = ["evaluate", *task, "--test", out / "test.jsonl", *items, *study.flags]
    goracs(*judged, "--model", files.model, "--out", untrained)
    record = json.loads((compared / "comparison.json").read_text())
    figures = {name: record[name] for name in ("rows", "pairs", "users", "notes")}
    metrics = json.loads(untrained.read_text())["metrics"]
    sizes = {"drawn": study.drawn, "training": study.training, "untrained": metrics}
    machines = machines_of(record["cells"])
    cells = cells_of(study.task, compared, record, out)
    figures["poo_against"] = ranks(cells)
    if study.task == "ctr":
        figures["recentred"] = over_seeds(cells, users_of(out))
        figures["bias_against_log_likelihood"] = bias_against(cells)
        for cell in cells:
            del cell["recentred"]  # has one value for every test example
    else:
        figures["popularity"] = popularity(out)
        how_popular = lambda cell: cell["log_popularity"]
        figures["popularity_against"] = against_outcomes(cells, how_popular)
    figures |= {"cells": cells, "machines": machines}
    print(write(name, sizes | {"task": study.task} | figures))
    shutil.copy(compared / "comparison.png", RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
