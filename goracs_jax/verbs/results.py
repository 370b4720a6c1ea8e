"""The files that `goracs select` leaves, and the table that it prints."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from goracs_jax.cost import with_lambda
from goracs_jax.data.examples import write_jsonl
from goracs_jax.files import atomic, write_json
from goracs_jax.report.picture import Row, figure, table
from goracs_jax.report.summary import summary_figure
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.say import say
from goracs_jax.selection.by_class import ClassRow, class_table
from goracs_jax.selection.problem import Selection, mean_distance
from goracs_jax.settings import Select
from goracs_jax.verbs.cells import Cell, Inputs
from goracs_jax.verbs.sources import Source

FILES = ("indices.npy", "coreset.jsonl", "scores.npz", "manifest.json", "report.png")


class Chosen(NamedTuple):
    """The subset of one method and the seconds that choosing it took."""

    method: str
    selection: Selection
    seconds: float


def write_results(
    settings: Select,
    source: Source,
    cell: Cell,
    inputs: Inputs,
    chosen: Sequence[Chosen],
) -> list[Row]:
    """Write the files of the contract for the first method of a cell.

    Args:
        settings: Of the verb.
        source: Where x, y and g came from.
        cell: The budget, the lambda and the folder.
        inputs: x, y, g and the cost.
        chosen: The method asked for, then what it is compared with.

    Returns:
        The table of the methods.
    """
    out, selection, norms = cell.out, chosen[0].selection, inputs.arrays.get("g")
    out.mkdir(exist_ok=True)
    # The files of an earlier run go first: a manifest means that the rest is its own.
    for name in ("manifest.json", "coreset.jsonl"):
        (out / name).unlink(missing_ok=True)
    with atomic(out / "indices.npy") as file:
        np.save(file, selection.indices)
    if source.pool:
        records = [source.pool.examples[i].record for i in selection.indices]
        write_jsonl(out / "coreset.jsonl", records)
    scores = {
        "selected": np.isin(np.arange(source.n_train), selection.indices),
        "nearest_distance": inputs.nearest,
    }
    if norms is not None:
        scores["grad_norm"] = norms
    with atomic(out / "scores.npz") as file:
        np.savez(file, allow_pickle=False, **scores)
    picture = figure(
        train=np.asarray(inputs.arrays["x"], np.float32),
        valid=np.asarray(inputs.arrays["y"], np.float32),
        grad_norms=norms,
        chosen={c.method: c.selection for c in chosen},
    )
    with atomic(out / "report.png") as file:
        picture.savefig(file, format="png", dpi=110)
    # A bound that one method computed holds for every subset of this size.
    bound = max(c.selection.lower_bound for c in chosen)
    rows = [_row(c, bound, inputs) for c in chosen]
    seconds = inputs.seconds | {f"selection {c.method}": c.seconds for c in chosen}
    manifest = _manifest(settings, source, cell, selection, rows, seconds)
    if source.labels:
        cost = with_lambda(inputs.cost, norms, cell.lambda_)
        manifest["classes"] = _plain(
            class_table(cost, source.labels, selection.indices)
        )
    write_json(out / "manifest.json", manifest)
    say(f"{out}: {', '.join(n for n in FILES if (out / n).exists())}")
    return rows


def write_summary(settings: Select, cells: Sequence[Cell], rows: Sequence[Row]) -> None:
    """Write what the cells came to, side by side, and print it as a table.

    Args:
        settings: Of the verb.
        cells: Budgets and lambdas.
        rows: What the method asked for came to in each.
    """
    pairs = list(zip(cells, rows, strict=True))
    pairs.sort(key=lambda pair: (pair[0].lambda_, pair[0].budget))
    picture = summary_figure({(c.lambda_, c.budget): row for c, row in pairs})
    with atomic(settings.out / "summary.png") as file:
        picture.savefig(file, format="png", dpi=110)
    plain = [
        {"budget": cell.budget, "lambda": cell.lambda_, "folder": cell.name, **row}
        for (cell, _), row in zip(pairs, _plain([r for _, r in pairs]), strict=True)
    ]
    write_json(settings.out / "summary.json", {"cells": plain})
    named = [r._replace(method=f"{c.budget}, {c.lambda_:g}") for c, r in pairs]
    say(table(named, f"{settings.method}: budget, lambda"))
    say(f"{settings.out}: summary.json, summary.png")


def _row(chosen: Chosen, bound: float, inputs: Inputs) -> Row:
    indices, norms = chosen.selection.indices, inputs.arrays.get("g")
    # A random draw needs neither embeddings nor gradient norms.
    earlier = 0.0 if chosen.method == "random" else sum(inputs.seconds.values())
    return Row(
        chosen.method,
        chosen.selection.objective,
        bound,
        float(mean_distance(inputs.cost, indices)),
        float("nan") if norms is None else float(norms[indices].mean()),
        earlier + chosen.seconds,
    )


def _manifest(
    settings: Select,
    source: Source,
    cell: Cell,
    selection: Selection,
    rows: Sequence[Row],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    made = made_by(settings)
    return made | {
        "config": made["config"]
        | {"budget": cell.budget, "lambda_": cell.lambda_, "out": str(cell.out)},
        "inputs": source.identity,
        "sizes": {"train": source.n_train, "valid": source.n_valid},
        "poo": selection.objective,
        "poo_units": "C = D / max(D) - lambda g / max(g), exact transport",
        "lower_bound": _finite(selection.lower_bound),
        "converged": selection.converged,
        "trace": [step._asdict() for step in selection.trace],
        "table": _plain(rows),
        "seconds": seconds,
    }


def _finite(x: Any) -> Any:
    """JSON has no infinity and no NaN."""
    return None if isinstance(x, float) and not np.isfinite(x) else x


def _plain(rows: Sequence[Row | ClassRow]) -> list[dict[str, Any]]:
    return [{k: _finite(v) for k, v in row._asdict().items()} for row in rows]
