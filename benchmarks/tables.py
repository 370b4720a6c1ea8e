"""Every figure of the README, out of the JSON files in results/.

python benchmarks/tables.py    # rewrites the marked parts of README.md
"""

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def load(name: str) -> dict[str, Any]:
    """The figures that a benchmark wrote."""
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def demo() -> str:
    """What `goracs demo` prints, and what it took."""
    figures = load("demo")
    lines = [
        "| method | POO exact | lower bound | mean distance | mean gradient norm |",
        "|---|---|---|---|---|",
    ]
    for row in figures["table"]:
        names = ("objective", "lower_bound", "mean_distance", "mean_grad_norm")
        numbers = " | ".join(f"{row[name]:.4f}" for name in names)
        lines.append(f"| {row['method']} | {numbers} |")
    sizes = figures["sizes"]
    lines.append(
        f"\n{figures['budget']} of {sizes['train']} examples for {sizes['valid']} of "
        f"validation, lambda {figures['lambda']}: {figures['wall_seconds']:.0f} s and "
        f"{figures['peak_memory_mib'] / 1024:.1f} GiB on {figures['cores']} cores, "
        f"{figures['seconds']['gradient-norms']:.0f} s of it gradient norms of a "
        "135M-parameter LLM (`benchmarks/demo.py`)."
    )
    return "\n".join(lines)


def games() -> str:
    """POO and seconds on an instance of Amazon Video Games."""
    figures = load("games_15k_5k")
    rows = {(row["method"], row["lambda"]): row for row in figures["rows"]}
    lambdas = sorted({row["lambda"] for row in figures["rows"]})
    lines = [
        "| scaled POO (s) | " + " | ".join(f"lambda {x:g}" for x in lambdas) + " |",
        "|---" * (len(lambdas) + 1) + "|",
    ]
    for method in ("random", "greedy", "goracs", "lower bound"):
        cells = []
        for x in lambdas:
            row = rows[method, x]
            seconds = row.get("seconds_to_subset", row["seconds"])
            cells.append(f"{row['scaled_poo']:.5f} ({seconds:.0f})")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines.append(
        f"\n{figures['budget']:,} of {figures['train']:,} for {figures['valid']:,} of "
        f"validation, {figures['cores']} cores, without compilation, peak memory "
        f"{figures['peak_memory_mib'] / 1024:.1f} GiB (`benchmarks/selection.py`). "
        "Scaled is (POO - min C) / (max C - min C)."
    )
    return "\n".join(lines)


def optimal() -> str:
    """How often small instances are solved to the optimum."""
    figures = load("brute_force")
    share = {}
    for row in figures["rows"]:
        share.setdefault(row["method"], []).append(row)
    cells = []
    for method, rows in share.items():
        hit = sum(row["optimal"] for row in rows) / len(rows)
        excess = sum(row["mean_excess"] for row in rows) / len(rows)
        cells.append(f"{method} on {100 * hit:.0f} % (mean excess of POO {excess:.4f})")
    count = figures["instances"] * len(share["goracs"])
    return (
        f"The best of all subsets, enumerated on {count:,} random instances of 8 to 12 "
        f"rows, is found by {', '.join(cells)} (`benchmarks/brute_force.py`)."
    )


RENDER = {"demo": demo, "games": games, "optimal": optimal}


def fill(text: str) -> str:
    """The text with every marked part made anew."""
    return MARKED.sub(lambda m: f"{m[1]}{RENDER[m[2]]()}\n{m[3]}", text)


if __name__ == "__main__":
    README.write_text(fill(README.read_text()))
