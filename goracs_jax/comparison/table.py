"""The table of a comparison: its rows for JSON and CSV, and Markdown."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from goracs_jax.choices import BASELINE
from goracs_jax.comparison.design import FULL
from goracs_jax.comparison.entries import Entry, Pair, Units, winners
from goracs_jax.comparison.intervals import interval
from goracs_jax.evaluate.outcomes import LIKELY

#: An entry as JSON and CSV have it.
TableRow = dict[str, Any]


def rows_of(
    entries: Sequence[Entry], pairs: Sequence[Pair], units: Units
) -> list[TableRow]:
    """Make one row per entry: metrics with intervals, and costs.

    Args:
        entries: The entries of `entries.entries_of`.
        pairs: Their differences, of `entries.pairs_of`.
        units: The user of each test example.

    Returns:
        Rows of JSON's types.
    """
    best = winners(entries, pairs)
    full = next((e for e in entries if e.method == FULL), None)
    whole = sum(full.mean_cost("flops").values()) if full else None
    rows = []
    for entry in entries:
        names = list(next(iter(entry.outcomes.values())).values)
        seconds, flops = entry.mean_cost("seconds"), entry.mean_cost("flops")
        total = sum(flops.values())
        rows.append(
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
    return rows


def headline(metrics: Sequence[str]) -> list[str]:
    """Choose the metrics of the Markdown table; the first is that of the picture.

    Of rankings these are the metrics at 10 among sampled candidates, behind the log
    likelihood of the whole title.

    >>> headline(["HR@5", "HR@10", "NDCG@10", "full NDCG@10", "log likelihood"])
    ['log likelihood', 'NDCG@10', 'HR@10']
    >>> headline(["AUC", "log likelihood"])
    ['AUC', 'log likelihood']
    """
    shown = [m for m in metrics if "@" not in m or m.endswith("@10")]
    shown = [m for m in shown if not m.startswith(("full ", "total "))]
    if "AUC" in shown:
        return shown
    return sorted(shown, key=lambda m: (m != LIKELY, "NDCG" not in m, "@" not in m))


def as_csv(rows: Sequence[TableRow]) -> str:
    """Write all metrics as CSV, one line per row; what a row lacks stays empty.

    >>> interval = {"value": 0.5, "low": 0.4, "high": 0.6, "p": 0.01}
    >>> row = {"method": "full", "seeds": [0, 1], "metrics": {"AUC": interval}}
    >>> print(as_csv([row | {"seconds": {"training": 2.0}, "flops": {}}]), end="")
    method,seeds,AUC,AUC low,AUC high,training seconds
    full,2,0.5,0.4,0.6,2.0
    """
    lines = []
    for row in rows:
        plain = {k: v for k, v in row.items() if not isinstance(v, list | dict)}
        line = plain | {"seeds": len(row["seeds"])}
        for metric, found in row["metrics"].items():
            line[metric] = found["value"]
            line |= {f"{metric} {end}": found[end] for end in ("low", "high")}
        for kind in ("seconds", "flops"):
            line |= {f"{stage} {kind}": x for stage, x in row[kind].items()}
        lines.append(line)
    names = list(dict.fromkeys(name for line in lines for name in line))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def as_markdown(rows: Sequence[TableRow], notes: Sequence[str]) -> str:
    """Write headline metrics and costs as Markdown, and what they mean.

    Args:
        rows: The rows of `rows_of`.
        notes: Lines for the end.

    Returns:
        The text of table.md.
    """
    metrics = headline(list(rows[0]["metrics"]))
    costs = ["selection s", "training s", "total s", "total FLOPs", "of full"]
    head = ["budget", "method", *metrics, "valid. loss", *costs]
    lines = [_line(head), _line(["---:", "---", *["---:"] * (len(head) - 2)])]
    for row in rows:
        found = [_shown(row, metric) for metric in metrics]
        loss = f"{row['valid_loss']:.4f}"
        lines.append(
            _line([str(row["budget"]), _name(row), *found, loss, *_costs(row)])
        )
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def notes_of(
    rows: Sequence[TableRow],
    pairs: Sequence[Pair],
    *,
    users: int,
    epoch_flops: float,
) -> list[str]:
    """Explain the numbers of a table.

    Args:
        rows: The rows of `rows_of`.
        pairs: Their differences, of `entries.pairs_of`.
        users: The number of test users.
        epoch_flops: FLOPs of one epoch over all training examples and one validation.

    Returns:
        Lines to stand below the table.
    """
    names: dict[int, list[str]] = {}  # by number of seeds
    for row in rows:
        name = f"{row['name']} of {row['budget']}"
        names.setdefault(len(row["seeds"]), []).append(name)
    single, notes = names.pop(1, []), []
    if names:
        most = max(names)
        over = f"over {users} test users and {most} seeds"
        for count in sorted(names.keys() - {most}):
            over += f"; over test users and {count} seeds: {'; '.join(names[count])}"
        notes = [
            f"In brackets: 95 % intervals, {over}.",
            "Bold: the interval of the paired difference (same users, same seeds) to "
            "each other method of the budget lies above zero. full does not compete.",
        ]
    if any(pair.holm_p is not None for pair in pairs):
        notes.append(_against_random(pairs, headline(list(rows[0]["metrics"]))))
    if single:
        whose = f" ({'; '.join(single)})" if names else ""
        notes.append(f"One seed has a value alone, which proves nothing{whose}.")
    if any(row["lambda_choice"] for row in rows):
        notes.append(
            "lambda by validation: the one whose models have the least mean validation "
            "loss; it costs what all of them cost. Test examples chose nothing, and "
            "rows of a fixed lambda among several do not compete."
        )
    return [
        *notes,
        "Costs are means over seeds. Selection: embeddings and gradient norms of all "
        "examples, charged in full to each row that needs them, and the search with "
        "what it reports (exact POO, and the bound of goracs); for random, the draw "
        "alone. Training: steps and validations, without loading and compiling. The "
        "seconds of the first search with a budget include compiling.",
        "FLOPs are counted from sizes and tokens, without padding "
        "(goracs_jax.llm.flops); for a search, one pass over C for each step of its "
        f"trace. Full data: {epoch_flops:.2e} per epoch with its validation.",
    ]


def _against_random(pairs: Sequence[Pair], metrics: Sequence[str]) -> str:
    """Say which methods differ from random, corrected for how many there are."""
    sure = []
    for pair in pairs:
        if pair.holm_p is not None and pair.holm_p < 0.05 and pair.metric in metrics:
            sign = 1 if pair.second == BASELINE else -1
            name = pair.first if pair.second == BASELINE else pair.second
            value = sign * pair.difference.value
            said = f"{name} of {pair.budget} {value:+.4f} {pair.metric}"
            sure.append(f"{said} (p {pair.holm_p:.2g})")
    return (
        "Different from random (p below 0.05, corrected by Holm for the number of "
        f"methods of the budget): {'; '.join(sure) or 'none'}."
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _name(row: TableRow) -> str:
    by = row["lambda_choice"] == "by validation"
    return row["name"] + (f" ({row['lambda']:g})" if by else "")


def _shown(row: TableRow, metric: str) -> str:
    found = row["metrics"][metric]
    text = f"{found['value']:.4f}"
    if found["low"] is not None:
        text += f" [{found['low']:.4f}, {found['high']:.4f}]"
    return f"**{text}**" if metric in row["best"] else text


def _costs(row: TableRow) -> list[str]:
    training, total = row["seconds"]["training"], row["total_seconds"]
    share = row["flops_of_full"]
    return [
        *(f"{x:.1f}" for x in (total - training, training, total)),
        f"{row['total_flops']:.2e}",
        "" if share is None else f"{100 * share:.3g} %",
    ]
