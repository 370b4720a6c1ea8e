"""Seconds of one transport by each solver, cold and warm, over sizes.

    python benchmarks/transport.py

The script transports n unit vectors in clusters to M others. A warm start takes the
dual potentials of a subset in which a tenth or a hundredth of the rows differ, or, for
exact transport alone, those of Sinkhorn for the same subset. The figures in
results/transport.json are the reason for what `solver="auto"` chooses.
Entropic plans are rounded onto the marginals, so that their value is never below the
exact one.
"""

import time
from functools import partial
from typing import Any

import numpy as np
from common import write
from selection import synthetic

from goracs_jax.cost import exact_cost, make_cost
from goracs_jax.transport import exact, sinkhorn

SIZES = [(256, 1280), (512, 2560), (1024, 5120)]


def measure(n: int, m: int) -> dict[str, Any]:
    """Time every solver at one size, with cold and warm starts."""
    data = synthetic(3 * n, m)
    cost = make_cost(data["train"], data["valid"], data["grad_norm"], 0.1)
    rng = np.random.default_rng(0)
    rows = rng.choice(3 * n, n, replace=False)
    others = np.setdiff1d(np.arange(3 * n), rows)
    matrix = exact_cost(cost, rows)
    starts: dict[str, Any] = {"": None}
    for name, share in (("_tenth", 10), ("_hundredth", 100)):
        similar = rows.copy()
        similar[: n // share] = rng.choice(others, n // share, replace=False)
        starts[name] = exact(exact_cost(cost, similar)).g
    solvers = {"exact": exact, "sinkhorn": sinkhorn}
    for g in (None, starts["_tenth"]):
        entropic = sinkhorn(matrix, g=g)  # compiles
    runs = {
        solver + name: partial(solve, matrix, g=g)
        for solver, solve in solvers.items()
        for name, g in starts.items()
    }
    runs["exact_entropic"] = partial(exact, matrix, g=entropic.g)
    row: dict[str, Any] = {"n": n, "m": m, "entries": n * m}
    for name, run in runs.items():
        started = time.perf_counter()
        value = run().value
        row |= {
            f"{name}_seconds": time.perf_counter() - started,
            f"{name}_value": value,
        }
    row["sinkhorn_excess"] = row["sinkhorn_value"] / row["exact_value"] - 1
    print(row)
    return row


def main() -> None:
    """Measure all sizes."""
    rows = [measure(*size) for size in SIZES]
    print(write("transport", {"rows": rows}))


if __name__ == "__main__":
    main()
