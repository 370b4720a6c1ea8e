"""Tables of the studies that were retired, and why they were."""

from typing import Any

from figures import load, markdown

SEQREC = ("seqrec", "seqrec_answer", "seqrec_long", "games")
COUNT, RATED = "liked titles", "liked titles, mean rating"


def retired() -> str:
    """Return what the retired studies measured, beside what needs no model."""
    return "\n".join([*_clicks(), "", *_titles()])


def reasons() -> str:
    """Return in a paragraph why the studies were retired."""
    studies = load("retired")
    long, titles = studies["ctr"]["ctr_long"], studies["seqrec"]["seqrec_long"]
    metric, rows = _ranking("seqrec_long")
    best = max(row["metrics"][metric]["value"] for row in rows)
    (full,) = long["full"]
    told = ", ".join(
        f"{_icc(found)} with {found['budget']} examples"
        for found in long["budgets"]
        if found["reliability"]
    )
    return (
        "Whether a user will like one more movie was a matter of counting: the number "
        f"of liked titles in the prompt has AUC {_auc(long, COUNT)} without any model, "
        f"and {_auc(long, RATED)} together with the mean rating of the movie; "
        f"SmolLM2-135M, fine-tuned on all {long['drawn']['train']:,} examples, has "
        f"{full['AUC']:.3f}. Over all models, AUC correlates "
        f"{long['AUC_against_ranking_by_count']:.2f} with how well they rank by that "
        "count. Which movie comes next was a matter of popularity: it reaches NDCG@10 "
        f"{titles['baselines']['popularity']['NDCG@10']:.3f}, the best model "
        f"{best:.3f}. And no choice was found to be better than random: the share of "
        f"the variance of AUC that the choice explains (ICC) is {told}. "
        f"{_corrected(long)}"
    )


def _clicks() -> list[str]:
    head = ["study", "n", "seeds", "random", "best arm", "full data"]
    head += [COUNT, "mean rating", "both", "of equal count", "ICC"]
    rows, notes = [], []
    for name, study in load("retired")["ctr"].items():
        for i, found in enumerate(study["budgets"]):
            best, seeds = found["best"], found.get("seeds", 1)
            beside = (COUNT, "mean rating", RATED)
            once = [
                ", ".join(f"{x['AUC']:.3f}" for x in study["full"]),
                *(_auc(study, baseline) for baseline in beside),
            ]
            rows.append(
                [
                    "" if i else name,
                    f"{found['budget']:,}",
                    str(seeds),
                    f"{found['random']:.3f}",
                    f"{best['AUC']:.3f} ({best['name']})",
                    *([""] * len(once) if i else once),
                    f"{found['within_equal_counts']:.3f}",
                    _icc(found),
                ]
            )
        if others := study["cells_of_other_devices"]:
            notes.append(
                f"Of {name}, {others} models that were not trained on "
                f"{study['device']} are left out of the table."
            )
        notes.append(_corrected(study, name))
    return [
        *markdown(head, rows),
        "\nWill the user like one more movie? Values are AUC over the test examples. "
        "`both` is a logistic regression on the number of liked titles in the prompt "
        "and the mean rating of the movie among all training interactions. `of equal "
        "count` is the mean AUC of the models over pairs of examples with equally many "
        "liked titles. The ICC, with its interval of 95 %, is the share of the "
        "variance of AUC that the arm explains, of arms with several seeds; of one "
        f"seed there is none. {' '.join(notes)} (`benchmarks/retired.py`).",
    ]


def _titles() -> list[str]:
    head = ["study", "n", "seeds", "untrained", "random", "best arm"]
    head += ["popularity in the pool", "popularity", "ItemKNN"]
    found, rows = load("retired")["seqrec"], []
    for name in SEQREC:
        metric, arms = _ranking(name)
        record = load(f"experiment_{name}")
        known = found.get(name, {}).get("baselines", {})
        once = [f"{record['popularity']['NDCG@10']:.3f}"]
        for baseline in ("popularity", "ItemKNN"):
            value = known.get(baseline, {}).get("NDCG@10")
            once.append("" if value is None else f"{value:.3f}")
        for i, budget in enumerate(sorted({row["budget"] for row in arms})):
            mine = [row for row in arms if row["budget"] == budget]
            value = {row["name"]: row["metrics"][metric]["value"] for row in mine}
            best = max(value, key=lambda arm: value[arm])
            random = value.get("random")
            rows.append(
                [
                    "" if i else name,
                    f"{budget:,}",
                    str(min(len(row["seeds"]) for row in mine)),
                    "" if i else f"{record['untrained'][metric]['value']:.3f}",
                    "" if random is None else f"{random:.3f}",
                    f"{value[best]:.3f} ({best})",
                    *([""] * 3 if i else once),
                ]
            )
    likely = found["seqrec_long"]["baselines"]["popularity"]["log likelihood"]
    return [
        *markdown(head, rows),
        "\nWhich title comes next, of 100? Values are NDCG@10. Popularity counts all "
        "training interactions, or the targets of the pool alone; ItemKNN knows the "
        "users of the pool. In seqrec and seqrec_answer the models rank by a generated "
        "title, in the others by likelihood per token. To the right title of "
        f"seqrec_long, popularity gives a log likelihood of {likely:.2f}; that of the "
        "models was kept per token alone (`benchmarks/retired.py`).",
    ]


def _ranking(name: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the metric that a study ranked by, and its rows."""
    record = load(f"experiment_{name}")
    metric = next(m for m in record["untrained"] if m.endswith("NDCG@10"))
    return metric, record["rows"]


def _auc(study: dict[str, Any], baseline: str) -> str:
    return f"{study['baselines'][baseline]['AUC']:.3f}"


def _icc(found: dict[str, Any]) -> str:
    if not found["reliability"]:
        return ""
    icc = found["reliability"]["AUC"]
    return f"{icc['icc']:.2f} [{icc['low']:.2f}, {icc['high']:.2f}]"


def _corrected(study: dict[str, Any], name: str = "") -> str:
    """Say which of all comparisons with random are left after Holm's correction."""
    family = [row for row in study["against_random"] if row["metric"] == "AUC"]
    sure = [
        f"{row['method']} of {row['budget']} ({row['difference']:+.3f}"
        f"{'' if row['one_kind_of_device'] else ', on another kind of device'})"
        for row in family
        if row["holm"] < 0.05
    ]
    better = [row for row in family if row["difference"] > 0]
    least = min(better, key=lambda row: row["p"])
    where = f" of {name}" if name else ""
    return (
        f"Of {len(family)} comparisons{where} with random, p is below 0.05 after "
        f"Holm's correction for {', '.join(sure) or 'none'}; of methods above random "
        f"the least p is {least['p']:.2g}, corrected {least['holm']:.2g} "
        f"({least['method']} of {least['budget']})."
    )
