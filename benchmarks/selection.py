"""POO and seconds of every method on one instance.

    python benchmarks/selection.py [--data instance.npz] [--budget 1000]

The instance is a .npz with train [N, dim], valid [M, dim] and grad_norm [N]; without
--data it is synthetic clusters. The script writes results/selection.json (or the --name
given) and draws POO against seconds from it. POO is given in the units of C and scaled
to (POO - min C) / (max C - min C), as the authors' released code prints it. The JSON
holds the lower bound as well, and for every stage of goracs its seconds with the FLOPs
and bytes that it needs at least.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import RESULTS, peak_mib, timed, write

from goracs_jax.cost import Cost, block_rows, exact_cost, make_cost, materialize
from goracs_jax.selection.bound import relax
from goracs_jax.selection.core import core_shape
from goracs_jax.selection.method import METHODS, Goracs, PairMoves
from goracs_jax.selection.problem import Problem, Refined, Step, solve
from goracs_jax.selection.search.annealing import anneal
from goracs_jax.selection.search.group_exchange import group_exchange
from goracs_jax.selection.search.pair_exchange import pairs_per_sweep
from goracs_jax.selection.search.schedule import plan_search
from goracs_jax.selection.search.stages import anneals, refined
from goracs_jax.selection.search.units import units_per_slot
from goracs_jax.selection.serving import points_served


def synthetic(n_train: int, n_valid: int, dim: int = 384) -> dict[str, np.ndarray]:
    """Draw unit vectors in 200 clusters; the validation set has half of them."""
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
    """Return the smallest and the largest entry of C."""
    n_train, step = cost.shape[0], block_rows(cost)
    blocks = [
        exact_cost(cost, np.arange(i, min(i + step, n_train)))
        for i in range(0, n_train, step)
    ]
    return min(b.min() for b in blocks), max(b.max() for b in blocks)


def matmul_rate(size: int = 4096, dtype: Any = jnp.float32) -> float:
    """Return the FLOPs per second of a matrix product, the best of five."""
    # Chips draw less power, and run faster, where numbers are equal.
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    dot = partial(jnp.matmul, precision="highest", preferred_element_type=jnp.float32)
    product = jax.jit(lambda x: dot(x, x))
    product(x).block_until_ready()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def copy_rate(floats: int = 1 << 26) -> float:
    """Return the bytes per second that a large array is read and written with."""
    x = jnp.arange(floats, dtype=jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    _, _, seconds = timed(lambda: copy(x), 5)
    return 2 * x.nbytes / seconds


def stages(
    make: Callable[[], Cost], budget: int, key: jax.Array
) -> tuple[list[dict[str, Any]], list[Step], float]:
    """Run the stages of `goracs` one after the other; measure each, with its floor.

    Returns:
        The stages, the trace from the start of the first, and the lower bound.
    """
    started = begun = time.perf_counter()
    done: list[dict[str, Any]] = []

    def stage(name: str, flops: float, read: float, poo: float | None = None) -> None:
        nonlocal begun
        now = time.perf_counter()
        done.append(
            {
                "stage": name,
                "seconds": now - begun,
                "floor_flops": flops,
                "floor_bytes": read,
                "poo": poo,
                "peak_mib": peak_mib(),
            }
        )
        print({k: v for k, v in done[-1].items() if v is not None})
        begun = time.perf_counter()

    cost = jax.block_until_ready(materialize(make()))
    (n_train, n_valid), dim = cost.shape, cost.valid.shape[1]
    inputs = cost.train.nbytes + cost.valid.nbytes
    once = 2 * n_train * n_valid * dim  # FLOPs of one pass over C
    # Where C is kept in memory it is computed once more, and a pass reads it.
    kept = 0 if cost.matrix is None else cost.matrix.nbytes
    a_pass, read = (0, kept) if kept else (once, inputs)
    stage("cost", once + kept / 4 * 2 * dim, inputs + kept)
    problem, settings = Problem(cost), Goracs()
    rows = np.asarray(problem.start(cost, budget))
    stage("greedy", a_pass + 2 * budget * n_valid * dim, read)
    rows_cost, solved = solve(cost, rows, problem.solver)
    found = Refined(rows, (Step(solved.value, time.perf_counter() - started, 0),), True)
    transport = 2 * budget * n_valid * dim
    stage("transport", transport, 0, solved.value)
    relaxed = relax(cost, rows_cost.min(0), solved.value, budget)
    size, width = core_shape(cost.shape, budget, n_train)
    assert settings.bound is not None
    rounds = settings.bound.fewest_rounds  # at least
    steps = settings.bound.steps * (2**rounds - 1)
    s = points_served(budget, n_valid)
    arcs = size * width
    # A pass over C before every round, one after the last, and one that certifies. If C
    # is not kept, the first may be enough: the others see few rows.
    passes = rounds + 2 if kept else 1
    stage(
        "prices",
        passes * a_pass + rounds * 2 * size * n_valid * dim + steps * arcs * s,
        passes * read + steps * 8 * arcs,
    )
    refine = partial(refined, problem, key=key, started=started)

    def exchange(found: Refined, rows: np.ndarray) -> Refined:
        found = refine(found, rows, group_exchange, seen=relaxed.seen)
        # If C is not kept, prices may leave out nearly all rows.
        flops, moved = transport, 0
        if kept:
            flops += once + 2 * n_train * (budget + n_valid)
            moved = inputs
        stage("group exchange", flops, moved, found.trace[-1].objective)
        return found

    found = exchange(found, relaxed.wanted[:budget])
    gap = found.trace[-1].objective - relaxed.bound
    if anneals(gap, (budget, n_valid), settings.annealing):
        before, found = found, refine(found, found.rows, anneal)
        s = units_per_slot(budget, n_valid)
        epochs, sweeps = plan_search(budget, n_valid)
        moves = (1 + epochs) * sweeps * pairs_per_sweep(budget)
        looked_at = moves * (2 + PairMoves().drawn) * 2 * s  # entries of C
        flops = a_pass + (1 + epochs) * transport + looked_at * 3 * 2 * s
        stage("annealing", flops, read + 4 * looked_at, found.trace[-1].objective)
        if found.rows is not before.rows:
            found = exchange(found, found.rows)
    return done, list(found.trace), relaxed.bound


def measure(
    data: Any, lambda_: float, budget: int, methods: list[str], seeds: int
) -> list[dict[str, Any]]:
    """Return one row for every method and seed; the first runs compile."""
    train, valid = (np.asarray(data[k], np.float32) for k in ("train", "valid"))
    make = lambda: make_cost(train, valid, data["grad_norm"], lambda_)
    low, high = cost_range(cost := make())
    problem = Problem(cost, grad_norms=data["grad_norm"])
    rows = []

    def add(method: str, seed: int, trace: Any, **more: Any) -> None:
        rows.append(
            {
                "lambda": lambda_,
                "method": method,
                "seed": seed,
                "poo": trace[-1].objective,
                "scaled_poo": (trace[-1].objective - low) / (high - low),
                **more,
                "trace": [
                    {
                        "scaled_poo": (step.objective - low) / (high - low),
                        "seconds": step.seconds,
                    }
                    for step in trace
                ],
            }
        )
        print({k: v for k, v in rows[-1].items() if k not in ("trace", "stages")})

    for method in methods:
        random = method in ("random", "stratified", "goracs", "k-center", "k-means")
        for seed in range(seeds if random else 1):
            key = jax.random.key(seed)
            started = time.perf_counter()
            if method == "goracs":
                parts, trace, bound = stages(make, budget, key)
                seconds = {"seconds": time.perf_counter() - started}
                add(method, seed, trace, **seconds, stages=parts, lower_bound=bound)
                rows[-1]["scaled_lower_bound"] = (bound - low) / (high - low)
            else:
                trace = METHODS[method].choose(problem, budget, key=key).trace
                add(method, seed, trace, seconds=time.perf_counter() - started)
    return rows


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw POO against seconds, one panel for each lambda."""
    import matplotlib.pyplot as plt  # accelerator.py does without it

    lambdas = sorted({row["lambda"] for row in record["rows"]})
    figure, axes = plt.subplots(
        1,
        len(lambdas),
        figsize=(4.2 * len(lambdas), 3.8),
        layout="tight",
        squeeze=False,
    )
    for axis, lambda_ in zip(axes[0], lambdas, strict=True):
        rows = [row for row in record["rows"] if row["lambda"] == lambda_]
        methods = list(dict.fromkeys(row["method"] for row in rows))
        for colour, method in enumerate(methods):
            for row in rows:
                if row["method"] != method:
                    continue
                first = row["seed"] == 0
                axis.plot(
                    [max(step["seconds"], 0.01) for step in row["trace"]],
                    [step["scaled_poo"] for step in row["trace"]],
                    "o-" if method == "goracs" else "s-",
                    color=f"C{colour}",
                    ms=3 if len(row["trace"]) > 1 else 6,
                    lw=1,
                    label=method if first else None,
                )
        bounds = [r["scaled_lower_bound"] for r in rows if "scaled_lower_bound" in r]
        if bounds:
            axis.axhline(max(bounds), color="k", ls=":", label="lower bound")
        axis.set(title=f"lambda {lambda_:g}", xlabel="seconds", xscale="log")
    axes[0][0].set_ylabel("POO, scaled to [min C, max C]")
    axes[0][-1].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def instance(
    parser: argparse.ArgumentParser, names: tuple[str, ...]
) -> tuple[argparse.Namespace, dict[str, np.ndarray], dict[str, Any]]:
    """Read the command line, with the flags of an instance.

    Returns:
        The flags, the arrays of these names, and what figures say of the instance.
    """
    parser.add_argument("--data", type=Path)
    parser.add_argument("--train", type=int, default=4000, help="rows, if synthetic")
    parser.add_argument("--valid", type=int, default=1000, help="rows, if synthetic")
    parser.add_argument("--budget", type=int, default=256)
    flags = parser.parse_args()
    data = np.load(flags.data) if flags.data else synthetic(flags.train, flags.valid)
    data = {name: data[name] for name in names}
    said = {
        "data": flags.data.name if flags.data else "synthetic clusters",
        "train": len(data["train"]),
        "valid": len(data["valid"]),
        "dim": data["train"].shape[1],
        "budget": flags.budget,
    }
    return flags, data, said


def main() -> None:
    """Run every method at every lambda."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--name", default="selection")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.0, 0.1, 0.5])
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["goracs", "greedy", "random", "nearest", "k-center", "k-means"],
        help="itra takes minutes per swap on CPUs where n M is large",
    )
    flags, data, said = instance(parser, ("train", "valid", "grad_norm"))
    rows = []
    for lambda_ in flags.lambdas:
        rows += measure(data, lambda_, flags.budget, flags.methods, flags.seeds)
    measured = {
        "matmul_flops_per_second": matmul_rate(),
        "copied_bytes_per_second": copy_rate(),
        "peak_memory_mib": peak_mib(),
    }
    path = write(flags.name, said | measured | {"rows": rows})
    draw(json.loads(path.read_text()), RESULTS / f"{flags.name}.png")
    print(path)


if __name__ == "__main__":
    main()
