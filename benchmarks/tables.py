"""Every figure of the READMEs, out of the JSON files in results/.

python benchmarks/tables.py    # rewrites their marked parts
"""

import json
import re
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from goracs_jax.comparison.table import headline

HERE = Path(__file__).parent
READMES = [HERE.parent / "README.md", HERE / "README.md"]
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return [line(head), "|---" * len(head) + "|", *map(line, rows)]


def load(name: str) -> dict[str, Any]:
    """The figures that a benchmark wrote."""
    return json.loads((HERE / "results" / f"{name}.json").read_text())


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
    for path in sorted((HERE / "results").glob("scale_*x*.json")):
        row = json.loads(path.read_text())
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


def finetune() -> str:
    """A step of LoRA fine-tuning against PyTorch and PEFT."""
    record = load("finetune")
    speeds = " and ".join(f"{name} {v:.0f}" for name, v in record["median"].items())
    return (
        f"Tokens a second of LoRA steps of {record['batch']} MovieLens prompts on "
        f"SmolLM2-135M: {speeds}, a ratio of {record['ratio']:.2f} "
        "(`benchmarks/finetune.py`)."
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


def experiment(study: str) -> str:
    """What fine-tuning on each choice came to."""
    record = load(f"experiment_{study}")
    ctr = record["task"] == "ctr"
    metrics = headline(list(record["untrained"]))
    untrained = [shown(record["untrained"][m]) for m in metrics]
    rows = [["none", "", "", *ctr * [""], *untrained, "", *ctr * ["", ""], "", "", ""]]
    for row in record["rows"]:
        share = row["flops_of_full"]
        found = {m: shown(row["metrics"][m]) for m in metrics}
        rows.append(
            [
                row["name"],
                str(row["budget"]),
                str(len(row["seeds"])),
                *([share_of_yes(record, row)] if ctr else []),
                *(f"**{x}**" if m in row["best"] else x for m, x in found.items()),
                over_random(record, row),
                *(recentred(record, row) if ctr else []),
                f"{row['valid_loss']:.4f}",
                f"{row['total_seconds']:.0f}",
                "" if share is None else f"{100 * share:.0f}",
            ]
        )
    gain, costs = "over random's", ("valid. loss", "s", "FLOPs, % of full")
    centred = ctr * ["recentred", gain]
    head = ["chosen by", "n", "seeds", *ctr * ["Yes, %"], *metrics, gain, *centred]
    drawn, ranked = record["drawn"], record["poo_against"]
    rho = lambda found: f"{found['rho']:+.2f} (p {found['p']:.2g})"
    names = ["valid_loss", *metrics, *ctr * ["log likelihood, recentred"]]
    ranks = ", ".join(f"with {n} {rho(ranked[n])}" for n in names)
    lines = [
        f"\nn of {drawn['train']} examples, {drawn['valid']} for validation, "
        f"{drawn['test']} of {record['users']} users for the test; "
        f"{record['training']['--epochs']} epochs. Intervals of 95 % over users and "
        "seeds; bold where the paired difference to every other method lies above "
        f"zero. Spearman's correlations of POO over the {ranked['cells']} choices "
        f"without gradients in C: {ranks.replace('valid_loss', 'validation loss')}. "
        f"Seconds were taken beside other work (`benchmarks/experiment.py {study}`)."
    ]
    if ctr:
        bias = record["bias_against_log_likelihood"]
        lines.append(
            "\nRecentred: one number is added to all logits, fitted on one half of the "
            "users for the other, so that the share of Yes is right. How wrong that "
            "share is explains most of a model's log likelihood: over all "
            f"{len(record['cells'])} models the correlation is {rho(bias)}."
        )
    return "\n".join([*markdown([*head, *costs], rows), *lines])


def shown(found: dict[str, float], sign: str = "") -> str:
    """A value and its interval."""
    value, low, high = (f"{found[key]:{sign}.3f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def share_of_yes(record: dict[str, Any], row: dict[str, Any]) -> str:
    """Of the choices of one lambda, in per cent."""
    key = (row["method"], row["lambda"], row["budget"])
    same = [
        cell["yes"]
        for cell in record["cells"]
        if (cell["method"], cell["lambda_"], cell["budget"]) == key
    ]
    return f"{100 * mean(same):.0f}"


def over_random(record: dict[str, Any], row: dict[str, Any]) -> str:
    """The paired difference to the log likelihood of random, of what competes."""
    if row["lambda_choice"] == "fixed":
        return ""
    here = (row["budget"], "log likelihood", {row["name"], "random"})
    for pair in record["pairs"]:
        both, d = (pair["first"], pair["second"]), pair["difference"]
        if (pair["budget"], pair["metric"], set(both)) == here:
            sign = 1 if both[0] == row["name"] else -1
            low, high = sorted([sign * d["low"], sign * d["high"]])
            return shown({"value": sign * d["value"], "low": low, "high": high}, "+")
    return ""


def recentred(record: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Log likelihood with the share of Yes set right, and over random's."""
    key = (row["method"], row["lambda"], row["budget"])
    for found in record["recentred"]:
        if (found["method"], found["lambda"], found["budget"]) == key:
            over = found.get("over_random")
            return [shown(found["value"]), shown(over, "+") if over else ""]
    return ["", ""]


def helps() -> str:
    """The experiments in a few lines."""
    asked = {
        "ctr": "Will the user like one more movie?",
        "ctr_users": "The same, every test example a user:",
        "seqrec": "Which movie comes next?",
    }
    lines = [f"- {question} {summary(study)}" for study, question in asked.items()]
    second = load("experiment_ctr_users")
    epochs = second["training"]["--epochs"]
    bias = second["bias_against_log_likelihood"]["rho"]
    return "\n".join(
        [
            f"SmolLM2-135M fine-tuned for {epochs} epochs on MovieLens examples: log "
            "likelihoods of the right answers of test users (of titles, a token) and "
            "what methods, lambda by validation, have over random, paired. An interval "
            "that holds zero proves nothing. How wrong a model's share of Yes is goes "
            f"with the log likelihood at {bias:+.2f} (the second line's models). All "
            "tables: `benchmarks/README.md` (`benchmarks/experiment.py`).",
            *lines,
        ]
    )


def summary(study: str) -> str:
    """What came of one experiment, in a line."""
    record = load(f"experiment_{study}")
    competing = [row for row in record["rows"] if row["lambda_choice"] != "fixed"]
    value = lambda row: f"{row['metrics']['log likelihood']['value']:.3f}"
    level = {row["method"]: value(row) for row in competing}
    over = {row["method"]: over_random(record, row) for row in competing}
    names = ("goracs", "goracs:by-label", "itra", "k-center", "grad-norm")
    budget = max(row["budget"] for row in competing if row["method"] == "random")
    return (
        f"{budget} of {record['drawn']['train']}, {record['users']} users: all "
        f"{level['full']}, random {level['random']}; "
        f"{', '.join(f'{name} {over[name]}' for name in names if over.get(name))}."
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
    "finetune": finetune,
    "evaluation": evaluation,
    "prepare": prepare,
    "experiment_ctr": partial(experiment, "ctr"),
    "experiment_ctr_users": partial(experiment, "ctr_users"),
    "experiment_seqrec": partial(experiment, "seqrec"),
    "helps": helps,
}


def fill(text: str) -> str:
    """The text with every marked part made anew."""
    return MARKED.sub(lambda m: f"{m[1]}{RENDER[m[2]]()}\n{m[3]}", text)


if __name__ == "__main__":
    for readme in READMES:
        readme.write_text(fill(readme.read_text()))
