"""Every method on instances of many shapes, compared with a long search.

    python benchmarks/suite.py [--only NAME ...]

Each instance runs in a process of its own, so that its peak memory can be measured. The
script writes results/suite.json and draws results/suite.png from it. They hold the POO
of random, greedy, ITRA as published (100 swaps, 30 candidates) and goracs (five seeds,
and once with the Sinkhorn solver), the lower bound, and the seconds, compilation
included. The best known POO is the smallest of all, where a search of twice the default
length from another seed counts as well.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from common import RESULTS, in_own_process, peak_mib, write
from instances import INSTANCES, Instance

from goracs_jax import goracs
from goracs_jax.cost import make_cost
from goracs_jax.errors import InputError
from goracs_jax.selection.method import SimulatedAnnealing
from goracs_jax.selection.problem import Problem
from goracs_jax.selection.search.annealing import anneal
from goracs_jax.selection.search.group_exchange import group_exchange

LAMBDA = 0.1
SEEDS = 5
LONGER = 2.0  # length of the long search over the default length
LONG_SEEDS = (100,)


def long_search(case: Instance) -> float:
    """Return the best POO that long searches find."""
    problem = Problem(make_cost(case.train, case.valid, case.grad_norm, LAMBDA))
    start = np.asarray(problem.start(problem.cost, case.budget))
    values = []
    for seed in LONG_SEEDS:
        key = jax.random.key(seed)
        longer = SimulatedAnnealing(effort=LONGER)
        rows = anneal(problem, start, key=key, settings=longer).rows
        trace = group_exchange(problem, rows, key=key).trace
        values.append(trace[-1].objective)
    return min(values)


def measure(name: str) -> dict[str, Any]:
    """Run all methods on one instance."""
    case = INSTANCES[name]()
    x, y, g, budget = case
    runs = [("random", s, "exact") for s in range(SEEDS)]
    runs += [("greedy", 0, "exact"), ("itra", 0, "exact")]
    runs += [("goracs", s, "exact") for s in range(SEEDS)] + [("goracs", 0, "sinkhorn")]
    rows, bound = [], -np.inf
    for method, seed, solver in runs:
        started = time.perf_counter()
        row = {
            "method": method if solver == "exact" else f"{method}, {solver}",
            "seed": seed,
        }
        try:
            found = goracs(
                x,
                y,
                g,
                budget=budget,
                lambda_=LAMBDA,
                key=jax.random.key(seed),
                method=method,
                solver=solver,
            )
        except InputError as error:  # Sinkhorn did not converge
            rows.append(row | {"poo": None, "error": str(error)})
        else:
            if found.lower_bound is not None:
                bound = max(bound, found.lower_bound)
            rows.append(
                row
                | {
                    "poo": found.objective,
                    "steps": len(found.trace) - 1,
                    "converged": bool(found.converged),
                }
            )
        rows[-1]["seconds"] = time.perf_counter() - started
        print(name, rows[-1], file=sys.stderr)
    long = long_search(case)
    return {
        "instance": name,
        "train": len(x),
        "valid": len(y),
        "dim": x.shape[1],
        "budget": budget,
        "long_search": long,
        "best": min(long, *(row["poo"] for row in rows if row["poo"] is not None)),
        "lower_bound": bound,
        "peak_memory_mib": peak_mib(),
        "rows": rows,
    }


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw how far POO is above the best known, in per cent, for the worst seed."""
    figure, axis = plt.subplots(figsize=(8, 4), layout="tight")
    methods = list(dict.fromkeys(r["method"] for r in record["instances"][0]["rows"]))
    for k, method in enumerate(methods):
        for at, case in enumerate(record["instances"]):
            poo = [row["poo"] for row in case["rows"] if row["method"] == method]
            if None in poo:
                continue
            excess = 100 * (max(poo) - case["best"]) / abs(case["best"])
            axis.plot(
                at + 0.1 * k - 0.2,
                max(excess, 1e-4),
                f"C{k}o",
                label=None if at else method,
            )
    names = [case["instance"] for case in record["instances"]]
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set(yscale="log", ylabel="POO above the best known, %")
    axis.axhline(0.2, color="k", ls=":", lw=1)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the instances one after the other, or one of them in this process."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--only", nargs="+", choices=INSTANCES, default=list(INSTANCES))
    parser.add_argument("--here", choices=INSTANCES, help="print one, in this process")
    flags = parser.parse_args()
    if flags.here:
        print(json.dumps(measure(flags.here)))
        return
    cases = [in_own_process(__file__, "--here", name) for name in flags.only]
    path = write("suite", {"lambda": LAMBDA, "instances": cases})
    draw(json.loads(path.read_text()), RESULTS / "suite.png")
    print(path)


if __name__ == "__main__":
    main()
