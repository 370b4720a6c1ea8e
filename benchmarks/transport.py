"""Seconds of one transport by each solver, cold and warm, over sizes.

    python benchmarks/transport.py

Clusters of unit vectors, n of them against M; warm starts from the potentials of a
subset in which a tenth of the rows differ. Writes results/transport.json: what
`solver="auto"` is decided by. Entropic values are those of plans rounded onto the
marginals, so they are never below the exact ones.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import write
from selection import synthetic

from goracs_jax.cost import exact_cost, make_cost
from goracs_jax.transport import SOLVERS

SIZES = [(256, 1280), (512, 2560), (1024, 5120), (1024, 20480), (2048, 20480)]


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and its seconds."""
    started = time.perf_counter()
    result = run()
    return result, time.perf_counter() - started


def main() -> None:
    """Solve every size by every solver."""
    rows = []
    for n, m in SIZES:
        data = synthetic(3 * n, m)
        cost = make_cost(data["train"], data["valid"], data["grad_norm"], 0.1)
        rng = np.random.default_rng(0)
        before = rng.choice(3 * n, n, replace=False)
        after = before.copy()
        others = np.setdiff1d(np.arange(3 * n), before)
        after[: n // 10] = rng.choice(others, n // 10, replace=False)
        matrix = exact_cost(cost, after)
        g = SOLVERS["exact"](exact_cost(cost, before)).g
        row: dict[str, Any] = {"n": n, "m": m}
        for name, solver in SOLVERS.items():
            if name == "sinkhorn":
                solver(matrix), solver(matrix, g=g)  # compile
            cold, row[f"{name}_seconds"] = timed(lambda solver=solver: solver(matrix))
            warm, row[f"{name}_warm_seconds"] = timed(
                lambda solver=solver: solver(matrix, g=g)
            )
            row[f"{name}_value"] = cold.value
            row[f"{name}_warm_value"] = warm.value
        row["sinkhorn_excess"] = row["sinkhorn_value"] / row["exact_value"] - 1
        print(row)
        rows.append(row)
    print(write("transport", {"rows": rows}))


if __name__ == "__main__":
    main()
