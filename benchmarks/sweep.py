"""One run for all budgets and lambdas against one run for every pair of them.

    python benchmarks/sweep.py [--data instance.npz] [--budgets 64 256]

The instance is a .npz with train [N, dim], valid [M, dim] and grad_norm [N]; without
--data it is synthetic clusters. The script writes results/sweep.json (or the --name
given) with the seconds of `goracs select` with all budgets and lambdas, the seconds of
one `goracs select` for every pair, and whether both selected the same rows. Seconds are
wall-clock and processor seconds, compilation included. Embeddings and gradient norms,
which a run from texts shares as well, are given and not part of the seconds.
"""

import argparse
import itertools
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from common import goracs, write
from selection import synthetic

from goracs_jax.jobs.selected import GridPoint


def select(
    arrays: Path, out: Path, budgets: list[int], lambdas: list[float], method: str
) -> dict[str, float]:
    """Run one `goracs select` and return its seconds."""
    listed = lambda values: ",".join(map(str, values))
    flags = {
        "--train-embeddings": arrays / "train.npy",
        "--valid-embeddings": arrays / "valid.npy",
        "--grad-norms": arrays / "grad_norm.npy",
        "--budget": listed(budgets),
        "--lambda": listed(lambdas),
        "--method": method,
        "--out": out,
    }
    words = [word for flag in flags.items() for word in flag]
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    clock, processor = time.perf_counter(), used()
    goracs("select", *words, stdout=subprocess.DEVNULL)
    return {"clock": time.perf_counter() - clock, "processor": used() - processor}


def main() -> None:
    """Select all pairs together and one by one."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--name", default="sweep")
    parser.add_argument("--train", type=int, default=4000, help="rows, if synthetic")
    parser.add_argument("--valid", type=int, default=1000, help="rows, if synthetic")
    parser.add_argument("--budgets", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.0, 0.1, 0.5])
    parser.add_argument("--method", default="goracs")
    flags = parser.parse_args()
    data = np.load(flags.data) if flags.data else synthetic(flags.train, flags.valid)
    cells = list(itertools.product(flags.budgets, flags.lambdas))
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder)
        for name in ("train", "valid", "grad_norm"):
            np.save(arrays / name, np.asarray(data[name], np.float32))
        one = arrays / "one"
        together = select(arrays, one, flags.budgets, flags.lambdas, flags.method)
        print(together)
        rows = []
        for budget, lambda_ in cells:
            out = arrays / GridPoint(budget, lambda_).name
            seconds = select(arrays, out, [budget], [lambda_], flags.method)
            alike = [np.load(at / "indices.npy") for at in (out, one / out.name)]
            found = json.loads((out / "manifest.json").read_text())
            rows.append(
                {
                    "budget": budget,
                    "lambda": lambda_,
                    "seconds": seconds,
                    "same_indices": bool(np.array_equal(*alike)),
                    "poo": found["poo"],
                }
            )
            print(rows[-1])
    figures = {
        "data": flags.data.name if flags.data else "synthetic clusters",
        "train": len(data["train"]),
        "valid": len(data["valid"]),
        "method": flags.method,
        "together": together,
        "separate": {
            kind: sum(row["seconds"][kind] for row in rows) for kind in together
        },
        "cells": rows,
    }
    print(write(flags.name, figures))


if __name__ == "__main__":
    main()
