"""The table of the testbeds: what trivial models know, and what cells say."""

from statistics import mean
from typing import Any

from common import RESULTS
from figures import load, markdown
from tables_checks import in_short
from testbeds_pools import TESTBEDS


def testbeds() -> str:
    """Return what is known of each testbed without a model, and with one."""
    records = {name: load(f"testbeds_{name}") for name in TESTBEDS}
    names = list(records["flips"]["baselines"])
    rows = [
        [
            name,
            f"{100 * record['planted']:.0f}",
            *(_mean(record["baselines"].get(each)) for each in names),
        ]
        for name, record in records.items()
    ]
    head = ["testbed", "planted, %", *names]
    lines = [*markdown(head, rows), "\n" + _note(records["flips"])]
    if choices := [row for name in TESTBEDS for row in _choices(name)]:
        head = ["testbed", "arm", *SHARES, *AREAS]
        lines += ["", *markdown(head, choices), "\n" + CHOICES]
    cells = [row for name, record in records.items() for row in _arms(name, record)]
    if cells:
        head = ["testbed", "arm", "outcome", "seeds", "value", "over random"]
        more = ["over the full pool", "share of the gap"]
        lines += ["", *markdown([*head, *more], cells), "\n" + CELLS]
    return "\n".join(lines)


def helps() -> str:
    """Return the AUC that arms reach in each testbed with cells, and what they gain."""
    rows, seeds = [], 0
    for name in TESTBEDS:
        record = load(f"testbeds_{name}")
        found = record.get("figures", [])
        by_arm = {row["arm"]: row for row in found if row["outcome"] == "AUC"}
        if by_arm:
            arms = [next((a for a in each if a in by_arm), "") for each in ARMS]
            means = [f"{by_arm[a]['mean']:.3f}" if a else "" for a in arms]
            gain = by_arm[arms[-1]].get("over_random")
            good = f"{100 * record['planted']:.0f} %"
            ours = [GORACS[arms[-1]], _interval(gain, "+"), _probe(name)]
            rows.append([name, good, *means, *ours])
            seeds = max(row["seeds"] for row in by_arm.values())
    head = ["testbed", "good", "all", "random", "oracle", "loss drop", "goracs"]
    head += ["by", "goracs over random", "the probe itself"]
    note = (
        f"AUC of SmolLM2-135M after 100 steps on 200 of 1,000 rows, or (where it was "
        f"run) after 500 on all, means of {seeds} seeds; the gain is paired by seed, "
        "with a t interval of 95 %."
    )
    return "\n".join([*markdown(head, rows), "", f"{note} {in_short()}"])


#: The arms of goracs in the short table, and what they choose by.
GORACS = {
    "goracs:by-label@text@probe, lambda 1": "text, reward `probe`",
    "goracs@gradient/none/cosine@none": "gradients, no reward",
}
#: The columns of the short table: of each, the first arm that a testbed has.
ARMS = (
    ("full",),
    ("random",),
    ("oracle",),
    ("loss-drop:by-label@text", "loss-drop@text"),
    tuple(GORACS),
)


def _probe(name: str) -> str:
    if not (RESULTS / f"planted_{name}.json").exists():
        return ""
    for row in load(f"planted_{name}")["arms"]:
        if "AUC by probe" in row:
            return f"{row['AUC by probe']['value']:.3f}"
    return ""


SHARES = ("share of 64", "share of 200")
AREAS = ("AUC by nearness", "AUC by reward", "AUC by probe")
CHOICES = (
    "Shares of planted rows among the 64 or 200 that an arm chooses, and the AUC of "
    "the planted rows by the mean distance to the ten nearest rows of the target in "
    "the arm's space, and by its reward (`by-label`: inside the answers). The last is "
    "the AUC on the judge's rows of the probe itself, a linear classifier of the "
    "target's prompts: it needs no pool and no fine-tuning. Means over seeds with t "
    "intervals of 95 % (`benchmarks/testbeds.py planted`)."
)
CELLS = (
    "Means over seeds, each of which draws pool, target, judge and the fresh adapter "
    "of SmolLM2-135M. Training on the full pool takes five times the steps. "
    "Differences are paired by seed, with t intervals of 95 %. The share of the gap "
    "from random to the oracle has Fieller's interval, because both of its parts are "
    "uncertain and correlated."
)


def _choices(name: str) -> list[list[str]]:
    if not (RESULTS / f"planted_{name}.json").exists():
        return []
    return [
        [name, _named(row), *(_interval(row.get(each)) for each in (*SHARES, *AREAS))]
        for row in load(f"planted_{name}")["arms"]
    ]


def _named(row: dict[str, Any]) -> str:
    weight = row["lambda"]
    return row["arm"] if weight is None else f"{row['arm']}, lambda {weight:g}"


def _note(record: dict[str, Any]) -> str:
    sizes = record["sizes"]
    return (
        "AUC on the judge's rows (for seqrec_matched NDCG@10, which is 0.454 by "
        f"chance), means over {len(record['seeds'])} seeds, of what the "
        f"{sizes['pool']:,} rows of a pool tell without a language model. Year and "
        "words are logistic regressions on the pool's answers; the last is fitted on "
        "its planted rows alone (`benchmarks/testbeds.py`)."
    )


def _arms(name: str, record: dict[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            row["arm"],
            row["outcome"],
            str(row["seeds"]),
            f"{row['mean']:.3f}",
            _interval(row.get("over_random"), "+"),
            _interval(row.get("over_full"), "+"),
            _interval(row.get("share_of_gap")),
        ]
        for row in record.get("figures", [])
    ]


def _mean(values: list[float] | None) -> str:
    return "" if values is None else f"{mean(values):.3f}"


def _interval(found: dict[str, Any] | None, sign: str = "") -> str:
    if not found:
        return ""
    if found["low"] is None:
        return f"{found['value']:{sign}.3f}"
    value, low, high = (f"{found[key]:{sign}.3f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
