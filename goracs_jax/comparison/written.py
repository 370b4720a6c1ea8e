"""The files of a comparison: table.md, table.csv, comparison.json, comparison.png."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from goracs_jax.comparison.cells import Finished, TrialFolder
from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.diagnosed import diagnosed, of_one_kind
from goracs_jax.comparison.entries import Units, entries_of, pairs_of
from goracs_jax.comparison.picture import comparison_figure
from goracs_jax.comparison.protocol import Protocol
from goracs_jax.comparison.table import (
    as_csv,
    as_markdown,
    headline,
    notes_of,
    rows_of,
)
from goracs_jax.files import together, write_json
from goracs_jax.llm.prompts import Task
from goracs_jax.runs.say import say
from goracs_jax.settings.outputs import COMPARED


def write(
    out: Path,
    task: Task,
    finished: Sequence[tuple[TrialFolder, Finished]],
    missing: Sequence[Trial],
    protocol: Protocol,
    units: Units,
    made: Mapping[str, Any],
) -> None:
    """Write the files of a comparison, all of them or none.

    Args:
        out: The folder.
        task: The task of the test examples.
        finished: The trials that are done, with what each left.
        missing: Trials that are not done.
        protocol: What was drawn, cut, equal or tuned.
        units: The user of each test example.
        made: What made the table: settings, versions and machine.
    """
    finished, left_out = of_one_kind(finished)
    outcomes = {p.trial: p.outcome(task, done, units) for p, done in finished}
    trials = [
        {"folder": str(place.folder.relative_to(out)), **done.record()}
        for place, done in finished
    ]
    entries = entries_of(outcomes)
    pairs = pairs_of(entries, units)
    rows = rows_of(entries, pairs, units)
    users, epoch_flops = int(units.max()) + 1, finished[0][1].epoch_flops
    notes = notes_of(rows, pairs, users=users, epoch_flops=epoch_flops)
    notes += [*protocol.notes, *diagnosed(finished), *left_out]
    if missing:
        names = "; ".join(map(str, missing))
        notes.append(f"Not all trials are done. Missing: {names}.")
    if len(_machines([done for _, done in finished])) > 1:
        notes.append("Seconds are those of several machines: compare FLOPs instead.")
    table = as_markdown(rows, notes)
    plain = lambda pair: pair._asdict() | {"difference": pair.difference._asdict()}
    comparison = {
        **made,
        "rows": rows,
        "pairs": [plain(pair) for pair in pairs],
        "users": users,
        "epoch_flops": epoch_flops,
        "notes": notes,
        "cells": trials,
    }
    if protocol.tuned:
        comparison["tuning"] = [tuned.record() for tuned in protocol.tuned]
    picture = comparison_figure(rows, headline(list(rows[0]["metrics"]))[0])
    with together(out, COMPARED, seal="comparison.json") as new:
        (new / "table.md").write_text(table, encoding="utf-8")
        (new / "table.csv").write_text(as_csv(rows), encoding="utf-8", newline="")
        picture.savefig(new / "comparison.png", dpi=110)
        write_json(new / "comparison.json", comparison)
    say(table.rstrip())
    say(f"{out}: {', '.join(COMPARED)}")


def _machines(finished: Sequence[Finished]) -> set[str]:
    """Return the devices that trained the models or chose their rows, as JSON."""
    devices = (device for done in finished for device in (done.device, done.chosen_on))
    return {json.dumps(device, sort_keys=True) for device in devices if device}
