"""The table of a comparison: records for JSON and CSV, and Markdown."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from goracs_jax.comparison.design import FULL
from goracs_jax.comparison.intervals import interval
from goracs_jax.comparison.results import Entry, Pair, Units, winners

Record = dict[str, Any]


def records_of(
    entries: Sequence[Entry], pairs: Sequence[Pair], units: Units
) -> list[Record]:
    """One record an entry: metrics with intervals, and what it cost.

    Args:
        entries: Of `entries_of`.
        pairs: Of `pairs_of`.
        units: The user of each test example.

    Returns:
        Records of JSON's types.
    """
    best = winners(entries, pairs)
    full = next((e for e in entries if e.method == FULL), None)
    whole = sum(full.mean_cost("flops").values()) if full else None
    records = []
    for entry in entries:
        names = list(next(iter(entry.outcomes.values())).values)
        seconds, flops = entry.mean_cost("seconds"), entry.mean_cost("flops")
        total = sum(flops.values())
        records.append(
            {
                "name": entry.name,
                "method": entry.method,
                "lambda": entry.lambda_,
                "lambda_choice": entry.choice,
                "budget": entry.budget,
                "seeds": sorted(entry.outcomes),
                "metrics": {
                    m: interval(entry.values(m), units)._asdict() for m in names
                },
                "best": [m for m in names if (entry.budget, entry.name, m) in best],
                "valid_loss": entry.valid_loss,
                "seconds": seconds,
                "flops": flops,
                "total_seconds": sum(seconds.values()),
                "total_flops": total,
                "flops_of_full": total / whole if whole else None,
            }
        )
    return records


def headline(metrics: Sequence[str]) -> list[str]:
    """The metrics of the Markdown table, the picture's first.

    Of ranks those at 10, among sampled candidates, and of likelihoods the one a token.

    >>> headline(["log likelihood", "HR@5", "HR@10", "NDCG@10", "full NDCG@10"])
    ['NDCG@10', 'HR@10', 'log likelihood']
    >>> headline(["AUC", "log likelihood"])
    ['AUC', 'log likelihood']
    """
    ranked = [m for m in metrics if m.endswith("@10")]
    shown = [m for m in ranked if not m.startswith(("full ", "total "))]
    shown += [m for m in metrics if "@" not in m]
    return sorted(shown, key=lambda m: ("NDCG" not in m, "@" not in m))


def as_csv(records: Sequence[Record]) -> str:
    """All metrics, a row a record; what a record does not have stays empty.

    >>> interval = {"value": 0.5, "low": 0.4, "high": 0.6, "p": 0.01}
    >>> record = {"method": "full", "seeds": [0, 1], "metrics": {"AUC": interval}}
    >>> print(as_csv([record | {"seconds": {"training": 2.0}, "flops": {}}]), end="")
    method,seeds,AUC,AUC low,AUC high,training seconds
    full,2,0.5,0.4,0.6,2.0
    """
    rows = []
    for record in records:
        plain = {k: v for k, v in record.items() if not isinstance(v, list | dict)}
        row = plain | {"seeds": len(record["seeds"])}
        for metric, found in record["metrics"].items():
            row[metric] = found["value"]
            row |= {f"{metric} {end}": found[end] for end in ("low", "high")}
        for kind in ("seconds", "flops"):
            row |= {f"{stage} {kind}": x for stage, x in record[kind].items()}
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_markdown(records: Sequence[Record], notes: Sequence[str]) -> str:
    """Headline metrics and costs, and what they mean.

    Args:
        records: Of `records_of`.
        notes: Lines for the end.

    Returns:
        The text of table.md.
    """
    metrics = headline(list(records[0]["metrics"]))
    costs = ["selection s", "training s", "total s", "total FLOPs", "of full"]
    head = ["budget", "method", *metrics, "valid. loss", *costs]
    lines = [_line(head), _line(["---:", "---", *["---:"] * (len(head) - 2)])]
    for record in records:
        found = [_shown(record, metric) for metric in metrics]
        loss = f"{record['valid_loss']:.4f}"
        lines.append(
            _line([str(record["budget"]), _name(record), *found, loss, *_costs(record)])
        )
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def notes_of(records: Sequence[Record], *, users: int, epoch_flops: float) -> list[str]:
    """What the numbers of a table mean.

    Args:
        records: Of `records_of`.
        users: Test users.
        epoch_flops: FLOPs of an epoch over all training examples, and a validation.

    Returns:
        Lines to stand below the table.
    """
    rows: dict[int, list[str]] = {}  # by number of seeds
    for record in records:
        name = f"{record['name']} of {record['budget']}"
        rows.setdefault(len(record["seeds"]), []).append(name)
    most = max(rows)
    over = f"over {users} test users and {most} seeds"
    if most == 1:
        over = f"over {users} test users only: there is one seed"
    for count in sorted(rows.keys() - {most}):
        fewer = f"and {count} seeds" if count > 1 else "only, there being one seed"
        over += f"; over test users {fewer}: {'; '.join(rows[count])}"
    notes = [
        f"In brackets: 95 % intervals, {over}.",
        "Bold: the interval of the paired difference (same users, same seeds) to each "
        "other method of the budget lies above zero. full does not compete.",
    ]
    if any(record["lambda_choice"] for record in records):
        notes.append(
            "lambda by validation: the one whose models have the least mean validation "
            "loss; it costs what all of them cost. Test examples chose nothing, and "
            "rows of a fixed lambda among several do not compete."
        )
    return [
        *notes,
        "Costs are means over seeds. Selection: embeddings and gradient norms of all "
        "examples, charged in full to each row that needs them, and the search with "
        "what it reports (exact POO, and the bound of goracs); of random the draw. "
        "Training: steps and validations, without loading and compiling; the first "
        "search with a budget compiles, too.",
        "FLOPs are counted from sizes and tokens, without padding "
        "(goracs_jax.llm.flops); of a search, a pass over C for each step of its "
        "trace. "
        f"Full data: {epoch_flops:.2e} an epoch with its validation.",
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _name(record: Record) -> str:
    by = record["lambda_choice"] == "by validation"
    return record["name"] + (f" ({record['lambda']:g})" if by else "")


def _shown(record: Record, metric: str) -> str:
    found = record["metrics"][metric]
    text = f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
    return f"**{text}**" if metric in record["best"] else text


def _costs(record: Record) -> list[str]:
    training, total = record["seconds"]["training"], record["total_seconds"]
    share = record["flops_of_full"]
    return [
        *(f"{x:.1f}" for x in (total - training, training, total)),
        f"{record['total_flops']:.2e}",
        "" if share is None else f"{100 * share:.3g} %",
    ]
