"""Seconds of one transport by each solver, cold and warm, over sizes.

    python benchmarks/transport.py

Clusters of unit vectors, n of them against M; warm starts from the potentials of a
subset in which a tenth of the rows differ. Writes results/transport.json: what
`solver="auto"` is decided by. Entropic values are those of plans rounded onto the
marginals, so they are never below the exact ones.
"""

import time
from typing import Any

import numpy as np
from common import write
from selection import synthetic

from goracs_jax.cost import exact_cost, make_cost
from goracs_jax.transport import exact, sinkhorn

SIZES = [(256, 1280), (512, 2560), (1024, 5120)]


def measure(n: int, m: int) -> dict[str, Any]:
    """Every solver at one size, cold and warm."""
    data = synthetic(3 * n, m)
    cost = make_cost(data["train"], data["valid"], data["grad_norm"], 0.1)
    rng = np.random.default_rng(0)
    before = rng.choice(3 * n, n, replace=False)
    after = before.copy()
    others = np.setdiff1d(np.arange(3 * n), before)
    after[: n // 10] = rng.choice(others, n // 10, replace=False)
    matrix = exact_cost(cost, after)
    g = exact(exact_cost(cost, before)).g
    for start in (None, g):
        sinkhorn(matrix, g=start)  # compiles
    runs = {
        "exact": lambda: exact(matrix),
        "exact_warm": lambda: exact(matrix, g=g),
        "sinkhorn": lambda: sinkhorn(matrix),
        "sinkhorn_warm": lambda: sinkhorn(matrix, g=g),
    }
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
