"""Tables of what the search takes: by effort, beside an older build, by stage."""

from collections.abc import Iterable
from statistics import median
from typing import Any

from figures import load, markdown


def efforts() -> str:
    """Return POO and seconds of every effort, beside other methods."""
    figures = load("efforts")
    low, high = figures["cost_range"]
    scale = lambda poo: (poo - low) / (high - low)
    of: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for row in figures["rows"]:
        of.setdefault((row["method"], row.get("effort")), []).append(row)
    lines = []
    for (method, effort), rows in of.items():
        seconds = median(row["seconds"] for row in rows)
        name = method if effort is None else f"{method}, effort {effort:g}"
        worst = scale(max(row["poo"] for row in rows))
        middle = scale(median(row["poo"] for row in rows))
        lines.append([name, f"{middle:.5f}", f"{worst:.5f}", f"{seconds:.1f}"])
    found = [row["lower_bound"] for row in figures["rows"] if "lower_bound" in row]
    lines.append(["lower bound", f"{scale(max(found)):.5f}", "", ""])
    head = ["method", "scaled POO", "worst", "s"]
    missing = [name for name, version in figures["peers"].items() if version is None]
    return "\n".join(
        [
            *markdown(head, lines),
            f"\n{figures['budget']:,} of {figures['train']:,} rows are selected for "
            f"{figures['valid']:,} validation rows at lambda 0 ({figures['data']}). "
            "POO is the median of the seeds, scaled to (POO - min C) / (max C - min C);"
            " seconds are medians, without compilation. ITRA is stopped after its time."
            + (f" Not installed: {', '.join(missing)}." if missing else "")
            + " (`benchmarks/efforts.py`)",
        ]
    )


def builds() -> str:
    """Return what an older build takes and finds, beside this one."""
    figures, large = load("builds"), load("builds_large")
    lines = []
    for name, each in (figures["instances"] | large["instances"]).items():
        found = each["summary"]
        pair = lambda key, digits, found=found: " → ".join(
            f"{found[key][build]:.{digits}f}" for build in ("old", "new")
        )
        ratio = found["ratio_seconds"]
        lines.append(
            [
                name,
                pair("mean_poo", 5),
                pair("mean_lower_bound", 5),
                pair("seconds", 2) if len(each["rows"]) > 1 else "",
                f"{ratio['median']:.2f} (at most {ratio['largest']:.2f})",
                pair("cold_seconds", 1),
            ]
        )
    head = ["instance", "mean POO", "mean bound", "warm, s", "ratio", "cold, s"]
    return "\n".join(
        [
            *markdown(head, lines),
            f"\nBuild {figures['old']} and this one select in turns, over several "
            "lambdas and seeds. Cold is the first selection, with imports and "
            "compilation; the others are warm, and the ratio is taken by pair. The "
            f"largest ({', '.join(large['instances'])}) are clusters, lambda 0.1, "
            f"which each build selects once, cold; peak memory: {peaks(large)} GiB "
            "(`benchmarks/builds.py`).",
        ]
    )


def peaks(figures: dict) -> str:
    """Return the peak memory of both builds on every instance, in GiB."""
    pairs = (each["summary"]["peak_mib"] for each in figures["instances"].values())
    return ", ".join(f"{p['old'] / 1024:.1f} → {p['new'] / 1024:.1f}" for p in pairs)


def stages() -> str:
    """Return the seconds of every stage of a selection, and the least they could be."""
    figures = load("games_15k_5k")
    flops, moved = (
        figures["matmul_flops_per_second"],
        figures["copied_bytes_per_second"],
    )
    rows = [r for r in figures["rows"] if r["method"] == "goracs" and r["seed"]]
    lines = []
    for lambda_ in sorted({row["lambda"] for row in rows}):
        warm = [row["stages"] for row in rows if row["lambda"] == lambda_]
        for name in _names(warm):
            each = [s for stages in warm for s in stages if s["stage"] == name]
            seconds = sum(s["seconds"] for s in each) / len(warm)
            by_flops = sum(s["floor_flops"] for s in each) / len(warm) / flops
            by_bytes = sum(s["floor_bytes"] for s in each) / len(warm) / moved
            floor = max(by_flops, by_bytes)
            limit = "FLOPs" if by_flops >= by_bytes else "bytes"
            share = f"{100 * floor / seconds:.0f} %"
            cells = [f"{lambda_:g}", name, f"{seconds:.2f}", f"{floor:.2f}"]
            lines.append([*cells, limit if floor else "", share])
    head = ["lambda", "stage", "s", "floor, s", "by", "floor / s"]
    return "\n".join(
        [
            *markdown(head, lines),
            f"\nSeconds are means of the warm runs on {figures['cores']} cores. The "
            "floor is what the FLOPs of a stage take at "
            f"{flops / 1e9:.0f} GFLOP/s, the speed of a product of matrices here, or "
            f"its bytes at {moved / 1e9:.1f} GB/s, that of a copy, whichever is more; "
            "what simplex, sorting and scattered reads need beside is not in it "
            "(`benchmarks/selection.py`).",
        ]
    )


def _names(runs: Iterable[list[dict[str, Any]]]) -> list[str]:
    """Return the stages of some runs, in order."""
    return list(dict.fromkeys(stage["stage"] for run in runs for stage in run))
