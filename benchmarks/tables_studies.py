"""Tables of the studies that fine-tune on what was selected."""

from math import exp
from statistics import mean
from typing import Any

from figures import load, markdown

from goracs_jax.comparison.table import headline

LIKELY = "log likelihood"


def experiment(study: str) -> str:
    """Return the table of a study: the models fine-tuned on each selection."""
    record = load(f"experiment_{study}")
    ctr = record["task"] == "ctr"
    metrics = headline(list(record["untrained"]))
    compared = [metrics[0], LIKELY]
    untrained = [shown(record["untrained"][m]) for m in metrics]
    blank = [""] * (len(compared) + 2 * ctr + 3)
    rows = [["none", "", "", *ctr * [""], *untrained, *blank]]
    for row in record["rows"]:
        share = row["flops_of_full"]
        seeds = len(row["seeds"])
        found = {m: shown(known(row["metrics"][m], seeds)) for m in metrics}
        best = row["best"] if seeds > 1 else []
        rows.append(
            [
                row["name"],
                str(row["budget"]),
                str(seeds),
                *([share_of_yes(record, row)] if ctr else []),
                *(f"**{x}**" if m in best else x for m, x in found.items()),
                *(over_random(record, row, metric) for metric in compared),
                *(recentred(record, row) if ctr else []),
                f"{row['valid_loss']:.4f}",
                f"{row['total_seconds']:.0f}",
                "" if share is None else f"{100 * share:.0f}",
            ]
        )
    gains = [f"{metric} minus random's" for metric in compared]
    costs = ("valid. loss", "s", "FLOPs, % of full")
    centred = ctr * ["recentred", "minus random's"]
    head = ["selected by", "n", "seeds", *ctr * ["Yes, %"], *metrics, *gains, *centred]
    drawn, ranked = record["drawn"], record["poo_against"]
    names = ["valid_loss", *metrics, *ctr * ["log likelihood, recentred"]]
    ranks = ", ".join(f"with {n} {rho(ranked[n])}" for n in names)
    lines = [
        f"\nn of {drawn['train']} examples are selected; {drawn['valid']} examples are "
        f"for validation and {drawn['test']} of {record['users']} users for testing. "
        f"Models are trained for {epochs_of(record)}. Intervals are of 95 % over users "
        "and seeds, not corrected for the number of comparisons; one seed has a value "
        "alone, which proves nothing. A value is bold where the interval of its paired "
        "difference to every other method of the budget lies above zero. Other "
        f"programs ran on the machine while seconds were measured{where(record)} "
        f"(`benchmarks/experiment.py {study}`)."
    ]
    if ranked["cells"] > 2:  # two have a correlation of 1 or -1, whatever they are
        lines.append(
            f"\nSpearman's correlations of POO over the {ranked['cells']} selections "
            "whose cost has no gradient term, ranked within a budget, are "
            f"{ranks.replace('valid_loss', 'validation loss')}. Selections of one "
            "method are similar, so that each method is about one observation."
        )
    if "popularity" in record:
        lines.append("\n" + popular(record))
    if ctr:
        bias = record["bias_against_log_likelihood"]
        lines.append(
            "\nFor the recentred log likelihood, one number is added to all logits so "
            "that the predicted share of Yes is right; it is fitted on one half of the "
            "users and applied to the other. The error of that share and the log "
            f"likelihood of a model are correlated: over all {len(record['cells'])} "
            f"models, ranked within a budget, the correlation is {rho(bias)}."
        )
    return "\n".join([*markdown([*head, *costs], rows), *lines])


def epochs_of(record: dict[str, Any]) -> str:
    """Say how long models are trained."""
    training = record["training"]
    scored = " with the loss of the answer alone" if "--labels" in training else ""
    if "--patience" not in training:
        return f"{training['--epochs']} epochs{scored}"
    return (
        f"at most {training['--epochs']} epochs, or until the validation loss has not "
        f"fallen for {training['--patience']} epochs{scored}"
    )


def where(record: dict[str, Any]) -> str:
    """Name the devices of a study that ran on more than one kind."""
    machines = record.get("machines", {})
    if len({kind for kinds in machines.values() for kind in kinds}) < 2:
        return ""
    said = {
        "chosen on": "rows were selected on",
        "trained on": "models were trained on",
    }
    used = (f"{said[k]} {' and '.join(v)}" for k, v in machines.items() if v)
    return "; " + ", ".join(used)


def popular(record: dict[str, Any]) -> str:
    """Say how well popularity alone ranks, and how popular selected titles are."""
    times: dict[tuple[int, str], list[float]] = {}
    for cell in record["cells"]:
        times.setdefault((cell["budget"], cell["method"]), []).append(
            cell["log_popularity"]
        )
    chosen = ", ".join(
        f"{method} {exp(mean(values)):.1f} (of {n})"
        for (n, method), values in sorted(times.items())
    )
    found, metric = record["popularity"], headline(list(record["untrained"]))[0]
    ranked = rho(record["popularity_against"][metric])
    alike = f" Its correlation with {metric} is {ranked}."
    return (
        "Without a model, candidates that are ranked by how often the pool has their "
        f"titles reach NDCG@10 {found['NDCG@10']:.3f} and HR@10 {found['HR@10']:.3f}. "
        "The geometric mean of how often the pool has a selected title is: "
        f"{chosen}.{alike if len(record['cells']) > 2 else ''}"
    )


def rho(found: dict[str, float | None]) -> str:
    """Format a rank correlation."""
    return "undefined" if found["rho"] is None else f"{found['rho']:+.2f}"


def known(found: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Leave out the interval of one seed: it would be over users alone."""
    return found if seeds > 1 else found | {"low": None, "high": None}


def shown(found: dict[str, Any], sign: str = "") -> str:
    """Format a value and its interval, if it has one."""
    if found["low"] is None:
        return f"{found['value']:{sign}.3f}"
    value, low, high = (f"{found[key]:{sign}.3f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def share_of_yes(record: dict[str, Any], row: dict[str, Any]) -> str:
    """Return the share of Yes in the selections of a row, in per cent."""
    key = (row["method"], row["lambda"], row["budget"])
    same = [
        cell["yes"]
        for cell in record["cells"]
        if (cell["method"], cell["lambda_"], cell["budget"]) == key
    ]
    return f"{100 * mean(same):.0f}"


def difference(
    record: dict[str, Any], row: dict[str, Any], metric: str
) -> dict[str, Any] | None:
    """Return the paired difference to random, or None if the row does not compete.

    A method competes with the lambda that its validation loss chooses; its rows of one
    fixed lambda do not.
    """
    if row["lambda_choice"] == "fixed":
        return None
    here = (row["budget"], metric, {row["name"], "random"})
    for pair in record["pairs"]:
        both, d = (pair["first"], pair["second"]), pair["difference"]
        if (pair["budget"], pair["metric"], set(both)) == here:
            sign, value = (
                (1, d["value"]) if both[0] == row["name"] else (-1, -d["value"])
            )
            if len(pair["seeds"]) < 2:
                return {"value": value, "low": None, "high": None}
            low, high = sorted([sign * d["low"], sign * d["high"]])
            return {"value": value, "low": low, "high": high}
    return None


def over_random(record: dict[str, Any], row: dict[str, Any], metric: str) -> str:
    """Format the paired difference to random."""
    found = difference(record, row, metric)
    return shown(found, "+") if found else ""


def recentred(record: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Format the recentred log likelihood and its difference to random."""
    key = (row["method"], row["lambda"], row["budget"])
    for found in record["recentred"]:
        if (found["method"], found["lambda"], found["budget"]) == key:
            over, seeds = found.get("over_random"), len(row["seeds"])
            gain = shown(known(over, seeds), "+") if over else ""
            return [shown(known(found["value"], seeds)), gain]
    return ["", ""]


def labels() -> str:
    """Return what the answer's loss gains over the loss of the whole sequence."""
    record = load("labels")
    metrics = list(record["rows"][0]["over"])
    rows = []
    for row in record["rows"]:
        weight = "" if row["lambda"] is None else f", lambda {row['lambda']:g}"
        seeds = len(row["seeds"])
        gains = [shown(known(row["over"][metric], seeds), "+") for metric in metrics]
        rows.append([row["method"] + weight, str(seeds), *gains])
    lines = markdown(["selected by", "seeds", *metrics], rows)
    lines.append(
        "\nEach value is the metric after training with the answer's loss minus the "
        "metric after training with the loss of prompt and answer, paired over "
        f"{record['users']} test users and seeds, with intervals of 95 % "
        "(`benchmarks/labels.py`)."
    )
    return "\n".join(lines)
