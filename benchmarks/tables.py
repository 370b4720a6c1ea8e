"""Write every figure of the READMEs and of docs/ from the JSON files in results/.

    python benchmarks/tables.py

In each page, the lines between `<!-- figures: NAME -->` and `<!-- end -->` are replaced
by what RENDER[NAME] returns.
"""

import re
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from common import RESULTS
from figures import load, markdown
from studies import experiment, helps, labels

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def demo() -> str:
    """What `goracs demo` prints, and what it took."""
    figures = load("demo")
    names = ("objective", "lower_bound", "mean_distance", "mean_grad_norm")
    head = ["method", "POO exact", "lower bound", "mean distance", "mean gradient norm"]
    rows = [
        [row["method"], *(f"{row[name]:.4f}" for name in names)]
        for row in figures["table"]
    ]
    lines = markdown(head, rows)
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
            f"\n{figures['budget']:,} of {figures['train']:,} for "
            f"{figures['valid']:,} of validation, {figures['cores']} cores: the worst "
            f"POO of {seeds} seeds (one for {', '.join(once)}) and the median of their "
            "seconds, lower bound included; the slowest, which compiles, took "
            f"{first:.0f} s. Peak memory "
            f"{figures['peak_memory_mib'] / 1024:.1f} GiB "
            "(`benchmarks/selection.py`). Scaled is (POO - min C) / (max C - min C).",
        ]
    )


def suite() -> str:
    """Excess over the best known on instances of many shapes."""
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
            "\nPOO above the best known in per cent, the worst of the seeds, and "
            "median seconds; the best known includes searches of twice the length "
            "(`benchmarks/suite.py`).",
        ]
    )


def sizes() -> str:
    """Whole selections of large sets."""
    lines = []
    for path in sorted(RESULTS.glob("scale_*x*.json")):
        row = load(path.stem)
        lines.append(
            [
                f"{row['train']:,} x {row['valid']:,}, n = {row['budget']:,}",
                f"{row['seconds']:.0f}",
                f"{row['peak_mib'] / 1024:.2f}",
                f"{row['input_mib'] / 1024:.2f}",
                f"{row['poo_greedy']:.4f}",
                f"{row['poo']:.4f}",
                f"{row['lower_bound']:.4f}",
            ]
        )
    head = ["N x M", "s", "peak GiB", "inputs GiB", "greedy", "goracs", "bound"]
    over = load("scale")
    return "\n".join(
        [
            *markdown(head, lines),
            "\nSynthetic clusters of 384 dimensions, memory-mapped, compilation "
            f"included. Seconds of a pass grow as N^{over['slope_train']:.2f} and "
            f"M^{over['slope_valid']:.2f} over four sizes each "
            "(`benchmarks/scale.py`).",
        ]
    )


def transport() -> str:
    """Exact against entropic transport."""
    lines = [
        [
            f"{row['n']:,} x {row['m']:,}",
            *(
                " · ".join(
                    f"{row[f'{solver}{start}_seconds']:.2f}"
                    for start in ("", "_tenth", "_hundredth")
                )
                for solver in ("exact", "sinkhorn")
            ),
            f"{100 * row['sinkhorn_excess']:.3f}",
        ]
        for row in load("transport")["rows"]
    ]
    head = ["n x M", "exact, s", "Sinkhorn, s", "Sinkhorn's value above exact, %"]
    return "\n".join(
        [
            *markdown(head, lines),
            "\nSeconds cold · warm from a subset in which a tenth of the rows differ · "
            "a hundredth (`benchmarks/transport.py`).",
        ]
    )


def sweep() -> str:
    """One run of many cells against a run for each."""
    row = load("sweep")
    one, many = row["together"]["clock"], row["separate"]["clock"]
    return (
        f"{len(row['cells'])} pairs of budget and lambda ({row['train']:,} x "
        f"{row['valid']:,}) in one run take {one:.0f} s, one run for each "
        f"{many:.0f} s (`benchmarks/sweep.py`)."
    )


def gradients() -> str:
    """The gradient pass against its floors and against PyTorch."""
    ours, theirs = load("gradients_ours"), load("gradients_torch")
    speed = ours["tokens_per_second"]
    rows = [
        [
            name,
            f"{ours['ratio'].get(name, 1):.2f}",
            f"{ours['floor'][name]:.2f}",
            *(f"{speed[name + kind]:.0f}" for kind in ("", ", bfloat16")),
        ]
        for name in ours["floor"]
    ]
    head = ["pass", "time / bare forward pass", "FLOPs / those of it"]
    head += ["tokens/s", "tokens/s, bfloat16"]
    waste, gain = 100 * ours["padding_waste"], theirs["norms_speed"]
    return "\n".join(
        [
            *markdown(head, rows),
            f"\nSmolLM2-135M, {ours['examples']} MovieLens prompts, "
            f"{ours['cores']} cores, {waste:.1f} % padding. On {theirs['examples']} "
            f"prompts last_v_lora_b is {gain:.2f} times as fast as one backward pass "
            "an example in PyTorch (batches of 8, the graph retained), and the bare "
            f"forward pass {theirs['forward_speed']:.2f} times as fast as that of "
            "transformers (`benchmarks/gradients.py`).",
        ]
    )


def compiled() -> str:
    """Seconds to compile models of two depths."""
    found = load("gradients_compile")["seconds"]
    cells = "; ".join(f"{name}: {seconds:.1f} s" for name, seconds in found.items())
    return f"Compilation: {cells} (`benchmarks/gradients.py compile`)."


def proxy() -> str:
    """How alike passes rank examples."""
    record = load("proxy")
    first, *others = dict.fromkeys(
        name for pair in record["spearman"] for name in pair.split(" | ")
    )
    answer = "labels answer"
    cell = lambda one, other: (
        f"{record['spearman'][f'{one} | {other}']:.3f}"
        if f"{one} | {other}" in record["spearman"]
        else ""
    )
    rows = [[name, cell(first, name), cell(answer, name)] for name in others]
    head = ["pass", f"with {first}", f"with {answer}"]
    return "\n".join(
        [
            *markdown(head, rows),
            f"\nSpearman's correlation of the norms of {record['examples']} MovieLens "
            f"prompts; with their lengths the first has {record['with_length']:.3f} "
            "(`benchmarks/proxy.py`).",
        ]
    )


def probe() -> str:
    """What embeddings know of the answers."""
    record = load("probe")
    auc = record["auc"]
    readers = list(next(iter(auc.values())))
    rows = [[name, *(f"{auc[name][r]:.3f}" for r in readers)] for name in auc]
    return "\n".join(
        [
            *markdown(["embeddings", *readers], rows),
            f"\nAUC of {record['test']:,} test examples, learnt from the embeddings "
            f"and answers of all {record['train']:,} of the pool "
            "(`benchmarks/probe.py`).",
        ]
    )


def finetune() -> str:
    """A step of LoRA fine-tuning against PyTorch and PEFT."""
    record = load("finetune")
    speeds = [
        f"loss of {'all tokens' if labels == 'all' else 'the answer'}: "
        + " and ".join(
            f"{name.removesuffix(f', {labels}')} {speed:.0f}"
            for name, speed in record["median"].items()
            if name.endswith(f", {labels}")
        )
        + f", a ratio of {ratio:.2f}"
        for labels, ratio in record["ratio"].items()
    ]
    return (
        f"Tokens a second of LoRA steps of {record['batch']} MovieLens prompts on "
        f"SmolLM2-135M; {'; '.join(speeds)} (`benchmarks/finetune.py`)."
    )


def evaluation() -> str:
    """The scorers of `goracs evaluate` against bare forward passes."""
    record = load("evaluate")
    rows = [
        [
            name,
            f"{part['examples_per_second']:.2f}",
            f"{part['floor_examples_per_second']:.2f}",
            f"{100 * part['share_of_floor']:.0f}",
        ]
        for name, part in record["parts"].items()
    ]
    head = ["part", "examples/s", "bare forward passes, examples/s", "share, %"]
    return "\n".join([*markdown(head, rows), "\n(`benchmarks/evaluate.py`)"])


def prepare() -> str:
    """A million lines of Amazon reviews."""
    record = load("prepare")
    runs = "; ".join(
        f"{name}: {run['seconds']:.0f} s, {run['peak_memory_mib'] / 1024:.2f} GiB"
        for name, run in record["runs"].items()
    )
    return (
        f"{record['lines']:,} lines of made-up reviews in the format of Amazon 2023, "
        f"{record['reviews_mib']:.0f} MiB gzipped: {runs} (`benchmarks/prepare.py`)."
    )


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


RENDER = {
    "demo": demo,
    "games": games,
    "optimal": optimal,
    "suite": suite,
    "sizes": sizes,
    "transport": transport,
    "sweep": sweep,
    "gradients": gradients,
    "compiled": compiled,
    "proxy": proxy,
    "probe": probe,
    "finetune": finetune,
    "evaluation": evaluation,
    "prepare": prepare,
    "experiment_ctr": partial(experiment, "ctr"),
    "experiment_ctr_users": partial(experiment, "ctr_users"),
    "experiment_seqrec": partial(experiment, "seqrec"),
    "experiment_seqrec_answer": partial(experiment, "seqrec_answer"),
    "labels": labels,
    "experiment_ctr_long": partial(experiment, "ctr_long"),
    "experiment_seqrec_long": partial(experiment, "seqrec_long"),
    "experiment_games": partial(experiment, "games"),
    "helps": helps,
}


def pages(root: Path = ROOT) -> list[Path]:
    """Return the Markdown files whose marked parts are filled: READMEs and docs/."""
    readmes = [root / "README.md", root / "benchmarks" / "README.md"]
    return readmes + sorted((root / "docs").rglob("*.md"))


def fill(text: str) -> str:
    """Return the text with every marked part made anew."""
    return MARKED.sub(lambda m: f"{m[1]}{RENDER[m[2]]()}\n{m[3]}", text)


if __name__ == "__main__":
    for page in pages():
        page.write_text(fill(page.read_text()))
