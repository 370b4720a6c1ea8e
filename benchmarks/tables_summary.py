"""The summary of all studies that fine-tune on what was selected."""

from collections.abc import Sequence
from typing import Any

from figures import load, markdown
from tables_studies import LIKELY, difference, epochs_of, over_random, shown

from goracs_jax.comparison.table import headline


def helps() -> str:
    """Return a summary of the studies: one table and a few lines."""
    long = load("experiment_ctr_long")
    machines = " and ".join(long["machines"]["trained on"])
    methods = ("goracs", "goracs:by-label", "itra", "grad-norm", "k-center")
    head = ["", "n", "seeds", "random", *methods, "all"]
    rows = [
        *against("seqrec_long", "Which movie comes next? NDCG@10", methods),
        *against("ctr_long", "Will the user like one more? AUC", methods),
    ]
    popular = load("experiment_seqrec_long")["popularity"]["NDCG@10"]
    return "\n".join(
        [
            f"SmolLM2-135M is fine-tuned on n of {long['drawn']['train']:,} MovieLens "
            f"examples for {epochs_of(long)} ({machines}). The columns `random` and "
            "`all` are the metric after a random selection and after training on all "
            "examples (one seed). The columns between them are differences to random, "
            "with lambda chosen by validation, paired over test users and seeds; "
            "budgets of one seed are left out. An interval that contains zero proves "
            "nothing, and with so many comparisons one that does not proves little."
            "\n",
            *markdown(head, rows),
            "\nTitles are ranked among 100; ranking by popularity alone reaches "
            f"{popular:.3f}. "
            f"{brief()} {scored()} All tables: `benchmarks/README.md` "
            "(`benchmarks/experiment.py`).",
        ]
    )


def against(study: str, question: str, methods: Sequence[str]) -> list[list[str]]:
    """Return what methods gain over random, one row for each budget."""
    record = load(f"experiment_{study}")
    metric = headline(list(record["untrained"]))[0]
    value = lambda row: f"{row['metrics'][metric]['value']:.3f}"
    competing = [row for row in record["rows"] if row["lambda_choice"] != "fixed"]
    full = next((value(row) for row in competing if row["method"] == "full"), "")
    rows = []
    for level in competing:
        if level["method"] == "random" and len(level["seeds"]) > 1:
            budget, seeds = level["budget"], level["seeds"]
            mine = {r["method"]: r for r in competing if r["budget"] == budget}
            over = (
                gain(record, mine[m], metric, len(seeds)) if m in mine else ""
                for m in methods
            )
            row = [f"{budget:,}", str(len(seeds)), value(level), *over, full]
            rows.append(["" if rows else question, *row])
    return rows


def gain(record: dict[str, Any], row: dict[str, Any], metric: str, seeds: int) -> str:
    """Format the gain over random, with lambda and seeds where they differ."""
    said = []
    if row["lambda"] is not None and row["lambda_choice"] is None:
        said.append(f"lambda {row['lambda']:g}")
    if len(row["seeds"]) != seeds:
        said.append(f"{len(row['seeds'])} seeds")
    return over_random(record, row, metric) + (f" ({', '.join(said)})" if said else "")


def brief() -> str:
    """Name the clear differences to random after a few epochs."""
    differences = [
        (f"{row['method']} ({study}) {shown(found, '+')}", found)
        for study in ("ctr", "ctr_users", "seqrec", "seqrec_answer")
        for record in [load(f"experiment_{study}")]
        for row in record["rows"]
        if (found := difference(record, row, LIKELY)) and found["low"] is not None
    ]
    sure = [text for text, d in differences if d["low"] > 0 or d["high"] < 0]
    return (
        f"After {epochs_of(load('experiment_ctr'))} on smaller pools, the intervals of "
        f"{len(sure)} of {len(differences)} differences in log likelihood exclude "
        f"zero: {', '.join(sure) or 'none'}."
    )


def scored() -> str:
    """Say what scoring the answer alone gains on the same random examples."""
    (row,) = (row for row in load("labels")["rows"] if row["method"] == "random")
    return (
        "The scored tokens matter, too: on the same random examples, the loss of the "
        "answer alone changes the log likelihood of the next movie's title by "
        f"{shown(row['over'][LIKELY], '+')} against the loss of prompt and answer."
    )
