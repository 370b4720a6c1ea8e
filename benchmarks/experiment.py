"""Does a coreset fine-tune a better recommender? `goracs compare` on MovieLens-100K.

    python benchmarks/experiment.py [--out DIR] [--seeds S]

SmolLM2-135M is asked whether a user will like one more movie (CTR; histories of five,
so that two cores get through). The newest interactions test, those before validate;
a pool, validation and test examples are drawn from these with a seed. Methods choose
from the pool, LoRA is trained on each choice for the same epochs, and AUC and log
likelihood are taken on the test examples: of the model as it is, too. Gradient norms,
embeddings and finished cells are kept in DIR; what a cell says is kept in
results/experiment_ctr/ as well, so that the next run, with more seeds or methods, goes
on from there. Writes results/experiment_ctr.json and results/experiment_ctr.png.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, write
from scipy.stats import spearmanr
from sklearn.metrics import log_loss, roc_auc_score

from goracs_jax.data.demo import fetch

METHODS = (
    "full,random,random:by-label,goracs,goracs:by-label,itra,grad-norm,error,nearest,"
    "k-center"
)
LAMBDAS = "0,0.05,0.1,0.5"
DRAWN = {"train": 400, "valid": 60, "test": 250}
TRAINING = {
    "--epochs": "3",
    "--valid-every": "3",
    "--batch-size": "8",
    "--learning-rate": "1e-3",
    "--warmup-steps": "5",
}
CELLS = RESULTS / "experiment_ctr"
KEPT = ("cell.json", "metrics.predictions.jsonl", "selection/indices.npy")


def goracs(*arguments: object) -> None:
    """A verb in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "goracs_jax", *map(str, arguments)]
    subprocess.run(command, check=True)


def draw(folder: Path, out: Path) -> None:
    """Some lines of each file, in their order."""
    rng = np.random.default_rng(0)
    for name, size in DRAWN.items():
        lines = (folder / f"{name}.jsonl").read_text().splitlines(keepends=True)
        rows = np.sort(rng.choice(len(lines), size, replace=False))
        (out / f"{name}.jsonl").write_text("".join(lines[row] for row in rows))


def copy_cells(source: Path, target: Path) -> None:
    """What `compare` needs to know a cell again, and what it had selected."""
    for record in sorted(source.glob("*/cell.json")):
        for name in KEPT:
            if (record.parent / name).exists():  # full selects nothing
                copy = target / record.parent.name / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(record.parent / name, copy)


def outputs(path: Path) -> np.ndarray:
    """Yes or No, for every example of a file."""
    lines = path.read_text().splitlines()
    return np.array([json.loads(line)["output"] for line in lines])


def cells_of(compared: Path, record: dict[str, Any], train: Path) -> list[dict]:
    """Every cell: POO of its choice, the share of Yes in it, and what came of it."""
    found = []
    for cell in record["cells"]:
        folder = compared / cell["folder"]
        lines = (folder / "metrics.predictions.jsonl").read_text().splitlines()
        predictions = list(map(json.loads, lines))
        said = [p["label"] == "Yes" for p in predictions]
        chosen = folder / "selection" / "indices.npy"
        rows = np.load(chosen) if chosen.exists() else slice(None)
        figures = {name: cell[name] for name in ("poo", "valid_loss", "epochs")}
        found.append(
            cell["cell"]
            | figures
            | {
                "yes": float(np.mean(outputs(train)[rows] == "Yes")),
                "auc": roc_auc_score(said, [p["score"] for p in predictions]),
                "log_loss": log_loss(said, [p["score"] for p in predictions]),
            }
        )
    return found


def ranks(cells: list[dict]) -> dict[str, Any]:
    """How POO at lambda 0 ranks choices, and how the trained models do (Spearman)."""
    plain = [c for c in cells if c["poo"] is not None and not c["lambda_"]]
    column = lambda name: [c[name] for c in plain]
    found: dict[str, Any] = {"cells": len(plain)}
    for name in ("valid_loss", "auc", "log_loss"):
        rho, p = spearmanr(column("poo"), column(name))
        found[name] = {"rho": rho, "p": p}
    return found


def main() -> None:
    """Prepare, compare, keep the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--out", type=Path, default=Path("experiment"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", default="64")
    options = parser.parse_args()
    out, files = options.out, fetch()
    compared = out / "compare"
    prepared = ["prepare", "--task", "ctr", "--history", 5]
    goracs(*prepared, "--input", files.interactions.parent, "--out", out / "data")
    draw(out / "data", out)
    copy_cells(CELLS, compared / "cells")
    training = [word for pair in TRAINING.items() for word in pair]
    goracs(
        *["compare", "--task", "ctr", "--methods", METHODS, "--lambdas", LAMBDAS],
        *["--budgets", options.budgets, "--seeds", options.seeds, *training],
        *["--model", files.model, "--encoder", files.encoder, "--out", compared],
        *(word for name in DRAWN for word in (f"--{name}", out / f"{name}.jsonl")),
    )
    copy_cells(compared / "cells", CELLS)
    untrained = out / "untrained.json"
    judged = ["evaluate", "--task", "ctr", "--test", out / "test.jsonl"]
    goracs(*judged, "--model", files.model, "--out", untrained)
    record = json.loads((compared / "comparison.json").read_text())
    figures = {name: record[name] for name in ("rows", "pairs", "users", "notes")}
    metrics = json.loads(untrained.read_text())["metrics"]
    sizes = {"drawn": DRAWN, "training": TRAINING, "untrained": metrics}
    cells = cells_of(compared, record, out / "train.jsonl")
    figures |= {"cells": cells, "poo_against": ranks(cells)}
    print(write("experiment_ctr", sizes | figures))
    shutil.copy(compared / "comparison.png", RESULTS / "experiment_ctr.png")


if __name__ == "__main__":
    main()
