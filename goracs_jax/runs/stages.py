"""One folder per run: artefacts under the hash of their inputs, resumed where left.

A stage is named by what it computes and the SHA-256 of everything that it depends on.
Another input or setting gives another name, so results of two settings are never mixed;
a stage that was finished is read back; one that was killed goes on after its last part.
Files appear under their final name only when they are whole.
"""

import json
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from goracs_jax.files import atomic, digest
from goracs_jax.llm.tokens import Batch, BatchFn, Mapper
from goracs_jax.mesh import agree, leads, meet

# Part results are written at least this often: what a kill can cost.
PART_SECONDS = 10.0

Arrays = dict[str, np.ndarray]

# What reading a lost or damaged file raises.
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class Stage(NamedTuple):
    """A computation to store: its name, all that it depends on, and how to run it.

    `prepare` loads and checks what is needed, so that bad input shows before any stage
    has run. `compute` gets a mapper for batches that stores part results, and returns
    arrays.
    """

    name: str
    inputs: Mapping[str, Any]
    compute: Callable[[Mapper], Arrays]
    prepare: Callable[[], object] = lambda: None

    @property
    def identity(self) -> dict[str, Any]:
        """All that its results depend on: the inputs and our version."""
        return {"goracs_jax": version("goracs-jax"), **self.inputs}

    def home(self, folder: Path) -> Path:
        """Where the stage is kept: its name depends on the identity."""
        return folder / "stages" / f"{self.name}-{digest(self.identity)[:16]}"

    def is_done(self, folder: Path) -> bool:
        """Whether a finished result lies in `folder`."""
        return _record(self.home(folder)) is not None


class Result(NamedTuple):
    """The arrays of a stage and the seconds that they took, kills included."""

    arrays: Arrays
    seconds: float


def run_stage(folder: Path, stage: Stage) -> Result:
    """Read a finished stage back, or compute it, going on where a kill left it.

    Args:
        folder: The run's folder.
        stage: What to compute.

    Returns:
        Its arrays and the seconds spent on them in all.
    """
    home = stage.home(folder)
    if done := _read_done(home):
        return done
    home.mkdir(parents=True, exist_ok=True)
    earlier = _read_parts(home).seconds
    started = time.perf_counter()
    arrays = stage.compute(_part_mapper(home, stage.name))
    seconds = earlier + time.perf_counter() - started
    if leads():
        for name, array in arrays.items():
            with atomic(home / f"{name}.npy") as file:
                np.save(file, array)
        record = {"arrays": list(arrays), "seconds": seconds, "inputs": stage.inputs}
        with atomic(home / "done.json") as file:
            file.write(json.dumps(record, indent=1).encode())
        shutil.rmtree(home / "parts", ignore_errors=True)
    meet("a stage is done")
    return Result(arrays, seconds)


def _record(home: Path) -> dict[str, Any] | None:
    """What a finished stage left; nothing where a file of it is lost."""
    try:
        record = json.loads((home / "done.json").read_text())
        whole = all((home / f"{name}.npy").exists() for name in record["arrays"])
        return record if whole else None
    except UNREADABLE:
        return None


def _read_done(home: Path) -> Result | None:
    """A finished stage; nothing where a file of it is lost or damaged."""
    if not (record := _record(home)):
        return None
    arrays = {}
    for name in record["arrays"]:
        try:
            # Opened here: np.load leaves a damaged file open.
            with (home / f"{name}.npy").open("rb") as file:
                arrays[name] = np.load(file)
        except UNREADABLE:
            return None
    return Result(arrays, record["seconds"])


class _Parts(NamedTuple):
    """What the first batches gave: tables of all examples, some rows still empty."""

    plan: str  # hash of all batches
    batches: int = 0
    seconds: float = 0.0
    tables: Sequence[np.ndarray] = ()


def _read_parts(home: Path) -> _Parts:
    """The tables that a killed run filled; none where a file is lost or damaged."""
    try:
        mark = json.loads((home / "parts" / "mark.json").read_text())
        tables = [_open_table(home, i, "r+") for i in range(len(mark["tables"]))]
        if [[list(t.shape), str(t.dtype)] for t in tables] == mark["tables"]:
            return _Parts(mark["plan"], mark["batches"], mark["seconds"], tables)
    except UNREADABLE:
        pass
    return _Parts("")


def _open_table(home: Path, index: int, mode: str, **new: Any) -> np.ndarray:
    path = home / "parts" / f"{index}.npy"
    if mode == "w+":  # one that is still mapped keeps its rows
        path.unlink(missing_ok=True)
    return np.lib.format.open_memmap(path, mode, **new)  # pyright: ignore


def _new_tables(
    home: Path, leaves: Sequence[np.ndarray], n_rows: int
) -> list[np.ndarray]:
    # A mark that outlived its tables would take empty rows for finished ones.
    (home / "parts" / "mark.json").unlink(missing_ok=True)
    return [
        _open_table(home, j, "w+", dtype=leaf.dtype, shape=(n_rows, *leaf.shape[1:]))
        for j, leaf in enumerate(leaves)
    ]


def _mark(home: Path, parts: _Parts) -> None:
    """Writes rows to the disk, then says that they are there."""
    for table in parts.tables:
        table.flush()  # pyright: ignore[reportAttributeAccessIssue]
    tables = [[list(t.shape), str(t.dtype)] for t in parts.tables]
    record = {**parts._asdict(), "tables": tables}
    with atomic(home / "parts" / "mark.json") as file:
        file.write(json.dumps(record).encode())


def _part_mapper(home: Path, label: str) -> Mapper:
    """As `tokens.map_batches`, but what is finished is kept and not done again.

    Rows go to files that are mapped into memory: they may be more than it holds.
    """

    def mapper(fn: BatchFn, batches: Sequence[Batch]) -> PyTree[np.ndarray]:
        (home / "parts").mkdir(exist_ok=True)
        # Rows of other batches are as good, but their count says nothing here.
        plan = digest([batch.rows.tolist() for batch in batches])
        earlier = _read_parts(home) if leads() else _Parts(plan)
        if earlier.plan != plan:
            earlier = _Parts(plan)
        # The last batch is run in any case: it tells how the tables belong together.
        first = agree(min(earlier.batches, len(batches) - 1))
        tables, leaves, tree = earlier.tables, [], None
        # What is done before each batch, and in the end.
        examples = np.cumsum([0, *(batch.num_examples for batch in batches)]).tolist()
        tokens = np.cumsum([0, *((b.ids >= 0).sum() for b in batches)]).tolist()
        started = marked = time.perf_counter()
        with progress(ExamplesColumn(), TokensColumn()) as bar:
            task = bar.add_task(
                label,
                total=tokens[-1],
                completed=tokens[first],
                examples=examples[first],
                of=examples[-1],
            )
            for i, batch in enumerate(batches[first:], first):
                found = jax.device_get(fn(batch.ids, batch.labels))
                leaves, tree = jax.tree.flatten(found)
                if leads():
                    tables = tables or _new_tables(home, leaves, examples[-1])
                    real = batch.rows >= 0
                    for table, leaf in zip(tables, leaves, strict=True):
                        table[batch.rows[real]] = leaf[real]
                    now = time.perf_counter()
                    if now - marked > PART_SECONDS or i == len(batches) - 1:
                        seconds = earlier.seconds + now - started
                        _mark(home, _Parts(plan, i + 1, seconds, tables))
                        marked = now
                bar.update(task, completed=tokens[i + 1], examples=examples[i + 1])
        meet("tables are full")
        if not leads():
            tables = [_open_table(home, j, "r") for j in range(len(leaves))]
        meet("tables are open")  # and may be deleted
        return jax.tree.unflatten(tree, tables)

    return mapper


class CountColumn(ProgressColumn):
    """Numbers on one line: where there is no room, the bar is what gets shorter."""

    def get_table_column(self) -> Column:
        """A column that does not wrap."""
        return Column(no_wrap=True)


class RateColumn(CountColumn):
    """Finished items a second."""

    def render(self, task: Task) -> Text:
        """The rate, or nothing before there is one."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


class ExamplesColumn(CountColumn):
    """Examples, of a bar that is as long as their tokens: all take their own time."""

    def render(self, task: Task) -> Text:
        """How many are done, and how many a second at the rate of their tokens."""
        done, of = task.fields["examples"], task.fields["of"]
        per_token = of / max(task.total or 0, 1)
        rate = f" {task.speed * per_token:.1f}/s" if task.speed else ""
        return Text(f"{done}/{of}{rate}")


class TokensColumn(CountColumn):
    """Tokens a second, padding not counted."""

    def render(self, task: Task) -> Text:
        """The rate, or nothing before there is one."""
        return Text(f"{task.speed:,.0f} tokens/s" if task.speed else "")


def progress(*counts: ProgressColumn) -> Progress:
    """A bar on standard error with counts, rates and time left, on process 0 alone.

    Args:
        counts: Columns that count; by default finished items and their rate.
    """
    return Progress(
        TextColumn("{task.description:>24}"),
        BarColumn(),
        *(counts or (MofNCompleteColumn(), RateColumn())),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not leads(),
    )
