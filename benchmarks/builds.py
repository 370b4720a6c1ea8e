"""The same selections by two builds of the project, in turns.

    python benchmarks/builds.py OLD [--data DATA.npz] [--seeds 5]
    python benchmarks/builds.py OLD --sizes 88000x22000,1000000x10000

OLD is a commit; the other build is this checkout. Each runs in a process of its own,
and both select in turns, so that whatever else the machine does meets both. The first
selection of an instance compiles (`cold`); the others do not. Instances are 2,000 x 500
normal numbers, and as many rows in clusters, with n = 64, and DATA (train, valid and
grad_norm, as for selection.py) with n = 1,000. The script writes results/builds.json.
With --sizes the instances are clusters of these sizes with n = 1,024; each build
selects once, and the figures go to results/builds_large.json, beside those of other
sizes that are there. The POO of both builds is computed by this one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
SMALL, LARGE, HUGE = 64, 1000, 1024  # n
LAMBDAS = (0.0, 0.1, 0.5)


def serve() -> None:
    """Select as lines on the standard input ask, with the package that is imported."""
    import jax

    from goracs_jax import goracs

    for line in sys.stdin:
        asked = json.loads(line)
        with np.load(asked["data"]) as data:
            x, y = (np.asarray(data[k], np.float32) for k in ("train", "valid"))
            norms = data["grad_norm"]
        more = {"budget": asked["budget"], "lambda_": asked["lambda"]}
        key = jax.random.key(asked["seed"])
        clock, cpu = time.perf_counter(), time.process_time()
        found = goracs(x, y, norms, key=key, **more)
        reply = {
            "seconds": time.perf_counter() - clock,
            "processor_seconds": time.process_time() - cpu,
            "lower_bound": found.lower_bound,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "rows": np.asarray(found.indices).tolist(),
        }
        print(json.dumps(reply), flush=True)


@contextmanager
def build(tree: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that serves the build of a tree."""
    ways = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, str(HERE), "--serve"]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    with subprocess.Popen(command, env=environment, cwd=tree, **ways) as process:
        yield process
        assert process.stdin
        process.stdin.close()


def ask(process: subprocess.Popen[str], asked: dict[str, Any]) -> dict[str, Any]:
    """Let a build select."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def measured(
    trees: dict[str, Path], path: Path, budget: int, lambdas: tuple, seeds: int
) -> Iterator[dict[str, Any]]:
    """Yield what each build found and took, for every lambda and seed."""
    from goracs_jax import poo

    with np.load(path) as data:
        x, y = (np.asarray(data[k], np.float32) for k in ("train", "valid"))
        norms = data["grad_norm"]
    with build(trees["old"]) as old, build(trees["new"]) as new:
        builds = {"old": old, "new": new}
        for lambda_, seed in product(lambdas, range(seeds)):
            asked = {"budget": budget, "lambda": lambda_, "seed": seed}
            cold = (lambda_, seed) == (lambdas[0], 0)
            row: dict[str, Any] = asked | {"cold": cold}
            for name, process in builds.items():
                found = ask(process, asked | {"data": str(path)})
                rows = np.array(found.pop("rows"))
                row[name] = found | {"poo": poo(x, y, norms, rows, lambda_=lambda_)}
            yield row


def normal(n_train: int, n_valid: int) -> dict[str, np.ndarray]:
    """Draw embeddings without clusters."""
    rng = np.random.default_rng(0)
    rows = {"train": n_train, "valid": n_valid}
    drawn = {side: rng.normal(size=(size, 64)) for side, size in rows.items()}
    return drawn | {"grad_norm": rng.gamma(4.0, size=n_train)}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians and ratios of the warm runs, the cold one, and means of POO.

    Where there is one run alone, it stands for the warm ones.
    """
    warm, cold = ([r for r in rows if r["cold"] == c] for c in (False, True))
    warm = warm or cold
    found: dict[str, Any] = {}
    for kind in ("seconds", "processor_seconds"):
        found[kind] = {n: median(r[n][kind] for r in warm) for n in ("old", "new")}
        ratios = [r["new"][kind] / r["old"][kind] for r in warm]
        found[f"ratio_{kind}"] = {"median": median(ratios), "largest": max(ratios)}
        found[f"cold_{kind}"] = {n: cold[0][n][kind] for n in ("old", "new")}
    for name in ("poo", "lower_bound"):
        found[f"mean_{name}"] = {
            n: float(np.mean([r[n][name] for r in rows])) for n in ("old", "new")
        }
    peaks = {n: max(r[n]["peak_mib"] for r in rows) for n in ("old", "new")}
    return found | {"peak_mib": peaks}


def main() -> None:
    """Check the old build out, run both, write the figures."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("old")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=lambda s: s.split(","), default=[])
    flags = parser.parse_args()
    from common import RESULTS, commit, write
    from scale import CLUSTERS, clusters
    from selection import synthetic
    from startup import unpack

    instances = {}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        trees = {"old": unpack(flags.old, made), "new": HERE.parents[1]}
        given = {}
        for size in flags.sizes:
            n_train, n_valid = map(int, size.split("x"))
            arrays = {
                "train": clusters(made / "train.npy", n_train, CLUSTERS, 1),
                "valid": clusters(made / "valid.npy", n_valid, CLUSTERS // 2, 2),
                "grad_norm": np.random.default_rng(3).gamma(4.0, size=n_train),
            }
            np.savez(path := made / f"{size}.npz", allow_pickle=False, **arrays)
            given[f"{n_train:,} x {n_valid:,}"] = path, HUGE, LAMBDAS[1:2], 1
        if not flags.sizes:
            small = {"normal": normal(2000, 500), "in clusters": synthetic(2000, 500)}
            for name, arrays in small.items():
                np.savez(path := made / f"{name}.npz", allow_pickle=False, **arrays)
                given[f"2,000 x 500, {name}"] = path, SMALL, LAMBDAS[:2], flags.seeds
        if flags.data:
            given[flags.data.name] = flags.data, LARGE, LAMBDAS, flags.seeds
        for name, (path, *how) in given.items():
            rows = []
            for row in measured(trees, path.resolve(), *how):
                print(row, flush=True)
                rows.append(row)
            found = {"commit": commit(), "summary": summary(rows), "rows": rows}
            instances[name] = found
            print(name, instances[name]["summary"])
    name = "builds_large" if flags.sizes else "builds"
    if flags.sizes and (path := RESULTS / f"{name}.json").exists():
        earlier = json.loads(path.read_text())
        if earlier["old"] == flags.old:
            instances = earlier["instances"] | instances
    print(write(name, {"old": flags.old, "instances": instances}))


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
