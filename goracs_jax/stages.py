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
from rich.text import Text

from goracs_jax.files import atomic, digest
from goracs_jax.tokens import Batch, BatchFn, Mapper

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

    def home(self, folder: Path) -> Path:
        """Where the stage is kept: its name depends on the inputs and our version."""
        made_by = {"goracs_jax": version("goracs-jax"), **self.inputs}
        return folder / "stages" / f"{self.name}-{digest(made_by)[:16]}"

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
    _, earlier = _read_parts(home)
    started = time.perf_counter()
    arrays = stage.compute(_part_mapper(home, stage.name))
    seconds = earlier + time.perf_counter() - started
    for name, array in arrays.items():
        with atomic(home / f"{name}.npy") as file:
            np.save(file, array)
    record = {"arrays": list(arrays), "seconds": seconds, "inputs": stage.inputs}
    with atomic(home / "done.json") as file:
        file.write(json.dumps(record, indent=1).encode())
    shutil.rmtree(home / "parts", ignore_errors=True)
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


def _read_parts(home: Path) -> tuple[list[np.ndarray], float]:
    """Results of the first batches, one array each, and the seconds they took."""
    values, seconds = [], 0.0
    for path in sorted((home / "parts").glob("*.npz")):
        try:
            with path.open("rb") as file, np.load(file) as part:
                found = [part[f"arr_{i}"] for i in range(len(part.files) - 1)]
                spent = float(part["seconds"])
        except UNREADABLE:
            break
        if int(path.stem) != len(values):
            break  # what lay between was damaged
        values += found
        seconds += spent
    return values, seconds


def _part_mapper(home: Path, label: str) -> Mapper:
    """As `tokens.map_batches`, but what is finished is kept and not done again."""

    def mapper(fn: BatchFn, batches: Sequence[Batch]) -> np.ndarray:
        parts = home / "parts"
        parts.mkdir(exist_ok=True)
        # values[i] belongs to batches[i]; parts were written in the order of batches.
        values, _ = _read_parts(home)
        examples = [int((batch.rows >= 0).sum()) for batch in batches]
        waiting: list[np.ndarray] = []
        since = time.perf_counter()

        def store() -> None:
            nonlocal since
            if not waiting:
                return
            seconds = time.perf_counter() - since
            first = len(values) - len(waiting)
            with atomic(parts / f"{first:08d}.npz") as file:
                np.savez(file, *waiting, seconds=np.float64(seconds))
            waiting.clear()
            since = time.perf_counter()

        with progress() as bar:
            task = bar.add_task(label, total=sum(examples))
            bar.advance(task, sum(examples[: len(values)]))
            for batch, count in zip(
                batches[len(values) :], examples[len(values) :], strict=True
            ):
                rows = np.asarray(jax.device_get(fn(batch.ids, batch.labels)))
                values.append(rows[batch.rows >= 0])
                waiting.append(values[-1])
                if time.perf_counter() - since > PART_SECONDS:
                    store()
                bar.advance(task, count)
            store()
        order = np.concatenate([batch.rows[batch.rows >= 0] for batch in batches])
        return np.concatenate(values)[np.argsort(order)]

    return mapper


class RateColumn(ProgressColumn):
    """Finished items a second."""

    def render(self, task: Task) -> Text:
        """The rate, or nothing before there is one."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def progress() -> Progress:
    """A bar on standard error with count, rate and time left, on process 0 alone."""
    return Progress(
        TextColumn("{task.description:>24}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=jax.process_index() != 0,
    )
