"""POO and seconds of every method on one instance.

    python benchmarks/selection.py [--data instance.npz] [--budget 1000]

The instance is a .npz with train [N, dim], valid [M, dim] and grad_norm [N]; without
one, synthetic clusters. Writes results/selection.json (or --name): POO in the units of
C, and scaled to (POO - min C) / (max C - min C), as the authors' released code prints
it, the lower bound, seconds and peak memory; beside each time its floor, the FLOPs of
the matrix products over what this machine reaches in one.
"""

import argparse
import resource
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import write

from goracs_jax.cost import Cost, block_rows, exact_cost, make_cost
from goracs_jax.selection import SELECTORS, Problem


def synthetic(n_train: int, n_valid: int, dim: int = 384) -> dict[str, np.ndarray]:
    """Unit vectors in 200 clusters, of which the validation set has half."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, dim))
    points = lambda size, k: (
        centres[rng.integers(k, size=size)] + rng.normal(size=(size, dim))
    )
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return {
        "train": unit(points(n_train, 200)),
        "valid": unit(points(n_valid, 100)),
        "grad_norm": rng.gamma(4.0, size=n_train).astype(np.float32),
    }


def cost_range(cost: Cost) -> tuple[float, float]:
    """Smallest and largest entry of C."""
    n_train, step = cost.shape[0], block_rows(cost)
    blocks = [
        exact_cost(cost, np.arange(i, min(i + step, n_train)))
        for i in range(0, n_train, step)
    ]
    return min(b.min() for b in blocks), max(b.max() for b in blocks)


def matmul_rate(size: int = 4096) -> float:
    """FLOPs a second of a float32 matrix product, the best of five."""
    x = jnp.ones((size, size))
    product = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    product(x).block_until_ready()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def main() -> None:
    """Run every method at every lambda, twice: the second time without compilation."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--name", default="selection")
    parser.add_argument("--train", type=int, default=4000, help="rows of the stand-in")
    parser.add_argument("--valid", type=int, default=1000, help="rows of the stand-in")
    parser.add_argument("--budget", type=int, default=256)
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.0, 0.1, 0.5])
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["goracs", "greedy", "random"],
        help="itra takes minutes a swap on CPUs where n M is large",
    )
    flags = parser.parse_args()
    data = np.load(flags.data) if flags.data else synthetic(flags.train, flags.valid)
    train, valid = (np.asarray(data[k], np.float32) for k in ("train", "valid"))
    rate = matmul_rate()
    rows = []
    for lambda_ in flags.lambdas:
        cost = make_cost(train, valid, data["grad_norm"], lambda_)
        low, high = cost_range(cost)
        n_train, n_valid = cost.shape
        pass_flops = 2 * n_train * n_valid * train.shape[1]
        round_flops = pass_flops + 2 * n_train * n_valid * flags.budget
        bound = -np.inf
        for method in flags.methods:
            seconds = []
            for _ in range(2):
                started = time.perf_counter()
                problem = Problem(cost, grad_norms=data["grad_norm"])
                run = SELECTORS[method](problem, flags.budget, key=jax.random.key(0))
                seconds.append(time.perf_counter() - started)
            rounds = len(run.trace) if method == "goracs" else 0
            passes = 0 if method == "random" else 1
            rows.append(
                {
                    "lambda": lambda_,
                    "method": method,
                    "poo": run.objective,
                    "scaled_poo": (run.objective - low) / (high - low),
                    "seconds": seconds[1],
                    "seconds_to_subset": run.trace[-1].seconds,
                    "seconds_first_run": seconds[0],
                    "floor_seconds": (passes * pass_flops + rounds * round_flops)
                    / rate,
                    "trace": [step._asdict() for step in run.trace],
                }
            )
            bound = max(bound, run.lower_bound)
            print({k: v for k, v in rows[-1].items() if k != "trace"})
        goracs = rows[flags.methods.index("goracs") - len(flags.methods)]
        rows.append(
            {
                "lambda": lambda_,
                "method": "lower bound",
                "poo": bound,
                "scaled_poo": (bound - low) / (high - low),
                "seconds": goracs["seconds"] - goracs["seconds_to_subset"],
            }
        )
        print(rows[-1])
    figures = {
        "data": flags.data.name if flags.data else "synthetic clusters",
        "train": len(train),
        "valid": len(valid),
        "dim": train.shape[1],
        "budget": flags.budget,
        "matmul_flops_per_second": rate,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": rows,
    }
    print(write(flags.name, figures))


if __name__ == "__main__":
    main()
