"""Seconds and memory of a selection as the training and validation sets grow.

    python benchmarks/scale.py                 one round, for four sizes N and four M
    python benchmarks/scale.py --full 88000 22000 1024      a whole selection

The data is synthetic clusters of unit vectors with 384 dimensions, memory-mapped. Every
size runs in a process of its own, so that its peak memory can be measured. The script
writes results/scale.json and draws results/scale.png from it; a whole selection is
written to results/scale_NxM.json. Every size has the floor of a pass as well: the
seconds that its FLOPs take at the speed of a matrix product on this machine.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from common import RESULTS, in_own_process, peak_mib, timed, write
from selection import matmul_rate, stages

from goracs_jax.cost import make_cost
from goracs_jax.selection.method import GroupExchange
from goracs_jax.selection.problem import Problem, solve
from goracs_jax.selection.search.candidates import largest_entries, slot_candidates
from goracs_jax.selection.search.group_exchange import assign

DIM = 384
CLUSTERS = 200
BUDGET = 256
TRAIN = (8_000, 16_000, 32_000, 64_000)
VALID = (1_000, 2_000, 4_000, 8_000)
BASE = (16_000, 2_000)


def clusters(path: Path, rows: int, used: int, seed: int) -> np.ndarray:
    """Write unit vectors in the first `used` clusters to a memory-mapped file."""
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, DIM))
    rng = np.random.default_rng(seed)
    made = np.lib.format.open_memmap(path, "w+", np.float32, (rows, DIM))
    for part in np.array_split(made, max(1, rows // 10_000)):
        x = centres[rng.integers(used, size=len(part))] + rng.normal(size=part.shape)
        part[:] = x / np.linalg.norm(x, axis=1, keepdims=True)
    made.flush()
    return made


def one_round(x: np.ndarray, y: np.ndarray, g: np.ndarray, budget: int) -> dict:
    """Time the three parts of a round of group exchange from a random subset."""
    cost = make_cost(x, y, g, 0.1)
    rows = np.random.default_rng(1).choice(len(x), budget, replace=False)
    (rows_cost, solved), _, transport = timed(lambda: solve_exact(cost, rows), 1)
    (value, candidates), _, pass_ = timed(
        lambda: slot_candidates(cost, solved.plan, GroupExchange().candidates), 3
    )
    present = np.asarray(largest_entries(solved.plan).multiply(rows_cost).sum(1))
    value = value.astype(np.float64)
    _, _, assignment = timed(lambda: assign(value, candidates, present, rows), 3)
    return {"pass": pass_, "assignment": assignment, "transport": transport}


def solve_exact(cost: Any, rows: np.ndarray) -> tuple[Any, Any]:
    """Return the cost rows of a subset and their exact transport."""
    problem = Problem(cost)
    return solve(problem.cost, rows, problem.solver)


def whole(x: np.ndarray, y: np.ndarray, g: np.ndarray, budget: int) -> dict:
    """Run the stages of a selection one after the other and time each."""
    with contextlib.redirect_stdout(sys.stderr):
        parts, trace, bound = stages(
            lambda: make_cost(x, y, g, 0.1), budget, jax.random.key(0)
        )
    return {
        "seconds": sum(part["seconds"] for part in parts),
        "stages": parts,
        "poo": trace[-1].objective,
        "poo_greedy": trace[0].objective,
        "lower_bound": bound,
    }


def measure(n_train: int, n_valid: int, budget: int, full: bool) -> dict[str, Any]:
    """Measure one size in this process."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("x.npy", "y.npy")]
        clusters(paths[0], n_train, CLUSTERS, 1)
        clusters(paths[1], n_valid, CLUSTERS // 2, 2)
        x, y = (np.load(path, mmap_mode="r") for path in paths)
        g = np.random.default_rng(3).gamma(4.0, size=n_train)
        run = whole if full else one_round
        return {
            "train": n_train,
            "valid": n_valid,
            "budget": budget,
            **run(x, y, g, budget),
            "peak_mib": peak_mib(),
            "input_mib": (x.nbytes + y.nbytes) / 2**20,
            "floor_pass_seconds": 2 * n_train * n_valid * DIM / matmul_rate(2048),
        }


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Return the exponent p of seconds ~ size^p, a slope in log-log axes."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the seconds of a pass against N and M, with their slopes and the floor."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="tight")
    for axis, (name, label) in zip(
        axes,
        [("train", "training rows N"), ("valid", "validation rows M")],
        strict=True,
    ):
        rows = record[f"over_{name}"]
        sizes = [row[name] for row in rows]
        for key, style in [("pass", "o-"), ("floor_pass_seconds", "k:")]:
            text = {"pass": f"pass, slope {record[f'slope_{name}']:.2f}"}
            axis.loglog(
                sizes, [row[key] for row in rows], style, label=text.get(key, "floor")
            )
        axis.set_xlabel(label)
        axis.legend()
    axes[0].set_ylabel("seconds")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run all sizes, or the one that the flags name."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    for flag in ("--full", "--full-here", "--round-here"):
        parser.add_argument(flag, type=int, nargs=3, metavar=("N", "M", "BUDGET"))
    flags = parser.parse_args()
    if here := flags.full_here or flags.round_here:
        print(json.dumps(measure(*here, full=bool(flags.full_here))))
        return
    if flags.full:
        n_train, n_valid, _ = flags.full
        row = in_own_process(__file__, "--full-here", *flags.full)
        print(write(f"scale_{n_train}x{n_valid}", row))
        return
    over: dict[str, list[dict]] = {"train": [], "valid": []}
    for sizes, name in ((TRAIN, "train"), (VALID, "valid")):
        for size in sizes:
            shape = (size, BASE[1]) if name == "train" else (BASE[0], size)
            over[name].append(in_own_process(__file__, "--round-here", *shape, BUDGET))
            print(over[name][-1])
    figures: dict[str, Any] = {f"over_{name}": rows for name, rows in over.items()}
    for name, rows in over.items():
        seconds = [row["pass"] for row in rows]
        figures[f"slope_{name}"] = slope([row[name] for row in rows], seconds)
    path = write("scale", {"dim": DIM, **figures})
    draw(json.loads(path.read_text()), RESULTS / "scale.png")
    print(path)


if __name__ == "__main__":
    main()
