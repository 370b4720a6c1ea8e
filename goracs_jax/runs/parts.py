"""A mapper over batches whose finished rows are kept, so that a killed run can resume.

Rows go to memory-mapped files, so they may be larger than the memory. A mark beside
them, mark.json, says how many batches the files contain.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from goracs_jax.buckets import deliver
from goracs_jax.disk import reserve, room_for
from goracs_jax.files import atomic, digest
from goracs_jax.llm.batches import AnyBatch, Batch, BatchFn, Mapper, Planned
from goracs_jax.llm.passes import results
from goracs_jax.mesh import agree, leads, meet
from goracs_jax.runs.progress import ExamplesColumn, TokensColumn, progress
from goracs_jax.runs.records import UNREADABLE

#: The folder, inside that of a stage, where part results are kept.
PARTS = "parts"


class Parts(NamedTuple):
    """Tables of all examples, in which the rows of the first batches are filled."""

    plan: str  # hash of all batches
    batches: int = 0
    seconds: float = 0.0
    tables: Sequence[np.ndarray] = ()


def seconds_of_parts(home: Path) -> float:
    """Return the seconds that killed runs spent on the parts that they left."""
    return _read(home).seconds


def part_mapper(home: Path, label: str, part_seconds: float) -> Mapper:
    """Make a mapper like `tokens.map_batches` that never repeats a finished batch.

    Args:
        home: The folder of the stage.
        label: What the progress bar says.
        part_seconds: Rows are written at least this often.
    """

    def mapper(fn: BatchFn, batches: Sequence[AnyBatch]) -> PyTree[np.ndarray]:
        (home / PARTS).mkdir(exist_ok=True)
        # Rows of other batches would do, but the mark counts batches of one plan.
        plan = digest([batch.rows.tolist() for batch in batches])
        earlier = _read(home) if leads() else Parts(plan)
        if earlier.plan != plan:
            earlier = Parts(plan)
        # The last batch is run in any case: its result has the structure of the pytree.
        first = agree(min(earlier.batches, len(batches) - 1))
        tables, leaves, tree = earlier.tables, [], None
        # Finished examples and work before each batch, and after the last one.
        examples = np.cumsum([0, *(batch.num_examples for batch in batches)]).tolist()
        work = np.cumsum([0, *(batch.work for batch in batches)]).tolist()
        tokens = [TokensColumn()] if isinstance(batches[0], Batch | Planned) else []
        started = marked = time.perf_counter()
        with progress(ExamplesColumn(), *tokens) as bar:
            task = bar.add_task(
                label,
                total=work[-1],
                completed=work[first],
                examples=examples[first],
                of=examples[-1],
            )
            todo = zip(batches[first:], results(fn, batches[first:]), strict=True)
            for i, (batch, found) in enumerate(todo, first):
                leaves, tree = jax.tree.flatten(found)
                if leads():
                    tables = tables or _new_tables(home, leaves, examples[-1])
                    real = batch.rows >= 0
                    for table, leaf in zip(tables, leaves, strict=True):
                        # Else NumPy would repeat or cut what the rows contain.
                        assert leaf.shape[1:] == table.shape[1:]
                        assert leaf.dtype == table.dtype
                        table[batch.rows[real]] = leaf[real]
                    now = time.perf_counter()
                    if now - marked > part_seconds or i == len(batches) - 1:
                        seconds = earlier.seconds + now - started
                        _mark(home, Parts(plan, i + 1, seconds, tables))
                        marked = now
                        deliver(home, often=False)
                bar.update(task, completed=work[i + 1], examples=examples[i + 1])
        meet("tables are full")
        if not leads():
            tables = [_open_table(home, j, "r") for j in range(len(leaves))]
        meet("tables are open")  # and may be deleted
        return jax.tree.unflatten(tree, tables)

    return mapper


def _read(home: Path) -> Parts:
    """Open the tables that a killed run filled; none where a file is damaged."""
    try:
        mark = json.loads((home / PARTS / "mark.json").read_text())
        tables = [_open_table(home, i, "r+") for i in range(len(mark["tables"]))]
        if [[list(t.shape), str(t.dtype)] for t in tables] == mark["tables"]:
            return Parts(mark["plan"], mark["batches"], mark["seconds"], tables)
    except UNREADABLE:
        pass
    return Parts("")


def _open_table(home: Path, index: int, mode: str, **new: Any) -> np.ndarray:
    path = home / PARTS / f"{index}.npy"
    if mode == "w+":  # a file that is still mapped keeps its rows
        path.unlink(missing_ok=True)
    with room_for(path):
        table = np.lib.format.open_memmap(path, mode, **new)  # pyright: ignore
    if mode == "w+":
        reserve(path)
    return table


def _new_tables(
    home: Path, leaves: Sequence[np.ndarray], n_rows: int
) -> list[np.ndarray]:
    # A mark that outlived its tables would take empty rows for finished ones.
    (home / PARTS / "mark.json").unlink(missing_ok=True)
    return [
        _open_table(home, j, "w+", dtype=leaf.dtype, shape=(n_rows, *leaf.shape[1:]))
        for j, leaf in enumerate(leaves)
    ]


def _mark(home: Path, parts: Parts) -> None:
    """Write rows to the disk, then say that they are there."""
    for table in parts.tables:
        table.flush()  # pyright: ignore[reportAttributeAccessIssue]
    tables = [[list(t.shape), str(t.dtype)] for t in parts.tables]
    record = {**parts._asdict(), "tables": tables}
    with atomic(home / PARTS / "mark.json") as file:
        file.write(json.dumps(record).encode())
