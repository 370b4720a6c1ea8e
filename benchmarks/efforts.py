"""POO against seconds: goracs with every effort, beside other methods.

    python benchmarks/efforts.py [--data DATA.npz] [--budget 256] [--seeds 3]

The data hold train, valid and grad_norm, as for selection.py; without them clusters are
drawn. The script writes results/efforts.json and draws results/efforts.png from it. At
lambda 0 methods that know nothing of gradients compete on equal terms: n centres of the
validation set (k-means of scikit-learn, the free-support barycenter of POT, medoids of
kmedoids), to which distinct training rows are assigned, and facility location of the
validation set by submodlib. Packages that are not installed are left out, and so are
centres where n is above M. ITRA is stopped after two minutes. One run that is not
measured compiles.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import RESULTS, installed, write
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from selection import cost_range, instance

from goracs_jax import goracs, poo
from goracs_jax.cost import make_cost

#: ITRA's 100 swaps take an hour on the larger instances: it is stopped after these.
ITRA_SECONDS = 120.0
EFFORTS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
Rows = np.ndarray
Choose = Callable[[np.ndarray, np.ndarray, int, int], Rows]


def assigned(centres: np.ndarray, x: np.ndarray) -> Rows:
    """Assign distinct training rows to centres with the least total distance."""
    return linear_sum_assignment(cdist(centres, x))[1]


def k_means(x: np.ndarray, y: np.ndarray, n: int, seed: int) -> Rows:
    """Assign rows to the centres of k-means of the validation set."""
    from sklearn.cluster import KMeans

    found = KMeans(n, n_init="auto", random_state=seed).fit(y)
    return assigned(found.cluster_centers_, x)


def barycenter(x: np.ndarray, y: np.ndarray, n: int, seed: int) -> Rows:
    """Assign rows to n points of equal mass whose transport to validation is least."""
    import ot

    mass = np.full(len(y), 1 / len(y))
    start = y[np.random.default_rng(seed).choice(len(y), n, replace=False)]
    found = ot.lp.free_support_barycenter([y], [mass], start)
    assert isinstance(found, np.ndarray)  # no log is asked for
    return assigned(found, x)


def k_medoids(x: np.ndarray, y: np.ndarray, n: int, seed: int) -> Rows:
    """Assign rows to the medoids of the validation set (FasterPAM)."""
    import kmedoids  # pyright: ignore[reportMissingImports]

    found = kmedoids.fasterpam(cdist(y, y), n, random_state=seed)
    return assigned(y[found.medoids.astype(int)], x)


def facility_location(x: np.ndarray, y: np.ndarray, n: int, seed: int) -> Rows:
    """Maximise the similarity of validation points to their nearest row, lazily."""
    import submodlib  # pyright: ignore[reportMissingImports]

    far = cdist(y, x)
    function = submodlib.FacilityLocationFunction(
        n=len(x),
        mode="dense",
        separate_rep=True,
        n_rep=len(y),
        sijs=(far.max() - far).astype(np.float32),
    )
    found = function.maximize(n, optimizer="LazyGreedy", show_progress=False)
    return np.array([row for row, _ in found])


#: By name: the package that must be installed, and the choice.
PEERS: dict[str, tuple[str, Choose]] = {
    "k-means, assigned": ("scikit-learn", k_means),
    "barycenter, assigned": ("POT", barycenter),
    "k-medoids, assigned": ("kmedoids", k_medoids),
    "facility location": ("submodlib-py", facility_location),
}


def measured(
    data: dict[str, np.ndarray], budget: int, seeds: int, efforts: list[float]
) -> Iterator[dict[str, Any]]:
    """Yield a row for every method, effort and seed."""
    x, y = (np.asarray(data[name], np.float32) for name in ("train", "valid"))

    def run(method: str, seed: int, **more: Any) -> dict[str, Any]:
        started = time.perf_counter()
        key = jax.random.key(seed)
        found = goracs(x, y, budget=budget, lambda_=0.0, key=key, method=method, **more)
        seconds = time.perf_counter() - started
        bound, value = found.lower_bound, found.objective
        row = {"method": method, "seed": seed, **more, "seconds": seconds, "poo": value}
        return row if bound is None else row | {"lower_bound": bound}

    run("goracs", 0)
    for effort in efforts:
        for seed in range(seeds):
            yield run("goracs", seed, effort=effort)
    for method in ("greedy", "random"):
        yield run(method, 0)
    yield run("itra", 0, time_limit=ITRA_SECONDS)
    for name, (package, choose) in PEERS.items():
        centred = name.endswith("assigned")
        if installed(package) is None or (centred and budget > len(y)):
            continue
        for seed in range(seeds if centred else 1):
            started = time.perf_counter()
            rows = choose(x.astype(np.float64), y.astype(np.float64), budget, seed)
            seconds = time.perf_counter() - started
            value = poo(x, y, None, rows, lambda_=0.0)
            yield {"method": name, "seed": seed, "seconds": seconds, "poo": value}


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the median POO against the median seconds, with the range of the seeds."""
    import matplotlib.pyplot as plt

    low, high = record["cost_range"]
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="tight")
    points: dict[tuple, list] = {}
    for row in record["rows"]:
        scaled = (row["poo"] - low) / (high - low)
        at = row["method"], row.get("effort")
        points.setdefault(at, []).append((row["seconds"], scaled))
    curve, told = [], {}
    for (method, effort), found in points.items():
        seconds, values = np.array(found).T
        middle = np.median(seconds), np.median(values)
        axis.vlines(middle[0], values.min(), values.max(), color="#8a8f99", lw=1)
        if effort is None:
            axis.plot(*middle, "s", label=method)
        else:
            curve.append(middle)
            # One text for efforts that take about as long.
            text, _ = told.get(at := round(4 * np.log10(middle[0])), ("", middle))
            told[at] = f"{text}, {effort:g}".removeprefix(", "), middle
    for text, middle in told.values():
        axis.annotate(text, middle, (-4, 5), textcoords="offset points")
    axis.plot(*np.array(curve).T, "o-", color="#d1442f", label="goracs, by effort")
    bounds = [row["lower_bound"] for row in record["rows"] if "lower_bound" in row]
    if bounds:
        bound = (max(bounds) - low) / (high - low)
        axis.axhline(bound, color="k", ls=":", label="lower bound")
    axis.set(xscale="log", xlabel="seconds", ylabel="POO, scaled to [min C, max C]")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure all methods, write the figures and draw them."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--efforts", type=float, nargs="+", default=EFFORTS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    flags, data, said = instance(parser, ("train", "valid"))
    rows = []
    for row in measured(data, flags.budget, flags.seeds, flags.efforts):
        print(row)
        rows.append(row)
    more = {
        "cost_range": cost_range(make_cost(data["train"], data["valid"])),
        "peers": {package: installed(package) for package, _ in PEERS.values()},
    }
    path = write("efforts", said | more | {"rows": rows}, flags.out)
    draw(json.loads(path.read_text()), path.with_suffix(".png"))
    print(path)


if __name__ == "__main__":
    main()
