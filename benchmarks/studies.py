"""Tables and a summary of the experiments that fine-tune on what was chosen."""

from statistics import mean
from typing import Any

from figures import load, markdown

from goracs_jax.comparison.table import headline


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
            "share is goes with a model's log likelihood: over all "
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
