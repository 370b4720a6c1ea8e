"""Tables of the benchmarks that select from given embeddings."""

from statistics import median
from typing import Any

from common import RESULTS
from figures import load, markdown


def games() -> str:
    """Return POO and seconds on an instance of Amazon Video Games."""
    figures = load("games_15k_5k")
    lambdas = sorted({row["lambda"] for row in figures["rows"]})
    cells: dict[str, list[str]] = {}
    for x in lambdas:
        of: dict[str, list[dict[str, Any]]] = {}
        for row in figures["rows"]:
            if row["lambda"] == x:
                of.setdefault(row["method"], []).append(row)
        for method, rows in of.items():
            poo = max(row["scaled_poo"] for row in rows)
            seconds = median(row["seconds"] for row in rows)
            cells.setdefault(method, []).append(f"{poo:.5f} ({seconds:.0f})")
        bound = max(row["scaled_lower_bound"] for row in of["goracs"])
        cells.setdefault("lower bound", []).append(f"{bound:.5f}")
    goracs = [row for row in figures["rows"] if row["method"] == "goracs"]
    seeds = len({row["seed"] for row in goracs})
    again = {row["method"] for row in figures["rows"] if row["seed"]}
    once = [
        m for m in dict.fromkeys(r["method"] for r in figures["rows"]) if m not in again
    ]
    first = max(row["seconds"] for row in goracs)
    head = ["scaled POO (s)", *(f"lambda {x:g}" for x in lambdas)]
    return "\n".join(
        [
            *markdown(head, [[method, *row] for method, row in cells.items()]),
            f"\n{figures['budget']:,} of {figures['train']:,} rows are selected for "
            f"{figures['valid']:,} validation rows on {figures['cores']} cores. Values "
            f"are the worst POO of {seeds} seeds (one seed for {', '.join(once)}), "
            "scaled to (POO - min C) / (max C - min C), and in parentheses the median "
            "seconds, which include the lower bound. The slowest run of goracs, which "
            f"compiles, took {first:.0f} s. Peak memory is "
            f"{figures['peak_memory_mib'] / 1024:.1f} GiB "
            "(`benchmarks/selection.py`).",
        ]
    )


def optimal() -> str:
    """Return how often small instances are solved to the optimum."""
    figures = load("brute_force")
    share = {}
    for row in figures["rows"]:
        share.setdefault(row["method"], []).append(row)
    cells = []
    for method, rows in share.items():
        hit = round(figures["instances"] * sum(row["optimal"] for row in rows))
        excess = sum(row["mean_excess"] for row in rows) / len(rows)
        cells.append(f"{method} on {hit:,} (mean excess {excess:.1g})")
    count = figures["instances"] * len(share["goracs"])
    return (
        f"All subsets of {count:,} random instances of 8 to 12 rows are enumerated. "
        f"The best one is found by {', '.join(cells)}; the excess is POO minus the "
        "optimum (`benchmarks/brute_force.py`)."
    )


def suite() -> str:
    """Return the excess over the best known POO on instances of many shapes."""
    figures = load("suite")
    methods = list(dict.fromkeys(r["method"] for r in figures["instances"][0]["rows"]))
    lines = []
    for case in figures["instances"]:
        shape = (
            f"{case['instance']} ({case['train']}, {case['valid']}, {case['budget']})"
        )
        cells = [shape]
        for method in methods:
            rows = [row for row in case["rows"] if row["method"] == method]
            seconds = median(row["seconds"] for row in rows)
            if any(row["poo"] is None for row in rows):
                cells.append(f"refused ({seconds:.1f})")
                continue
            worst = max(row["poo"] for row in rows) - case["best"]
            cells.append(f"{100 * worst / abs(case['best']):.2f} ({seconds:.1f})")
        gap = 100 * (case["best"] - case["lower_bound"]) / abs(case["best"])
        lines.append([*cells, f"{gap:.1f}"])
    head = ["instance (N, M, n)", *methods, "bound below"]
    return "\n".join(
        [
            *markdown(head, lines),
            "\nValues are how far POO of the worst seed is above the best known POO, "
            "in per cent, and in parentheses the median seconds. The best known POO "
            "includes searches of twice the default length (`benchmarks/suite.py`).",
        ]
    )


def sizes() -> str:
    """Return whole selections of large sets."""
    lines = []
    for path in sorted(RESULTS.glob("scale_*x*.json")):
        row = load(path.stem)
        lines.append(
            [
                f"{row['train']:,} x {row['valid']:,}, n = {row['budget']:,}",
                row["commit"],
                f"{row['seconds']:.0f}",
                f"{row['peak_mib'] / 1024:.2f}",
                f"{row['input_mib'] / 1024:.2f}",
                f"{row['poo_greedy']:.4f}",
                f"{row['poo']:.4f}",
                f"{row['lower_bound']:.4f}",
            ]
        )
    head = [
        "N x M",
        "build",
        "s",
        "peak GiB",
        "inputs GiB",
        "greedy",
        "goracs",
        "bound",
    ]
    over = load("scale")
    return "\n".join(
        [
            *markdown(head, lines),
            "\nThe data is synthetic clusters of 384 dimensions, memory-mapped. "
            "Seconds include compilation. The seconds of one pass over C grow as "
            f"N^{over['slope_train']:.2f} and M^{over['slope_valid']:.2f} over four "
            "sizes each (`benchmarks/scale.py`).",
        ]
    )


def transport() -> str:
    """Return the seconds of exact and of entropic transport."""
    starts = ("", "_tenth", "_hundredth")
    asked = {"exact": (*starts, "_entropic"), "sinkhorn": starts}
    lines = [
        [
            f"{row['n']:,} x {row['m']:,}",
            *(
                " · ".join(f"{row[f'{solver}{start}_seconds']:.2f}" for start in each)
                for solver, each in asked.items()
            ),
            f"{100 * row['sinkhorn_excess']:.3f}",
        ]
        for row in load("transport")["rows"]
    ]
    head = ["n x M", "exact, s", "Sinkhorn, s", "Sinkhorn's value above exact, %"]
    return "\n".join(
        [
            *markdown(head, lines),
            "\nThe numbers of a solver are the seconds of a cold start, of a warm "
            "start from a subset in which a tenth of the rows differ, of one in which "
            "a hundredth differ, and from Sinkhorn's potentials for the same one "
            "(`benchmarks/transport.py`).",
        ]
    )


def sweep() -> str:
    """Return the seconds of one run for many pairs and of a run for each pair."""
    row = load("sweep")
    one, many = row["together"]["clock"], row["separate"]["clock"]
    return (
        f"For {len(row['cells'])} pairs of budget and lambda ({row['train']:,} x "
        f"{row['valid']:,}), one run takes {one:.0f} s, and a separate run for each "
        f"pair takes {many:.0f} s in total (`benchmarks/sweep.py`)."
    )
