"""One folder per run: artefacts under the hash of their inputs, resumed where left.

A stage is named by what it computes and the SHA-256 of everything that it depends on.
Another input or setting gives another name, so results of two settings are never mixed;
a stage that was finished is read back; one that was killed goes on after its last part.
Files appear under their final name only when they are whole.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
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
        """Where the stage is kept: a name that depends on the inputs."""
        return folder / "stages" / f"{self.name}-{digest(self.inputs)[:16]}"

    def is_done(self, folder: Path) -> bool:
        """Whether a finished result lies in `folder`."""
        return _done(self.home(folder)) is not None


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
    done = _done(home)
    if done:
        arrays = {name: np.load(home / f"{name}.npy") for name in done["arrays"]}
        return Result(arrays, done["seconds"])
    home.mkdir(parents=True, exist_ok=True)
    earlier = _part_seconds(home)
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


def _done(home: Path) -> dict[str, Any] | None:
    """The record of a finished stage whose arrays are all there."""
    if not (home / "done.json").exists():
        return None
    record = json.loads((home / "done.json").read_text())
    whole = all((home / f"{name}.npy").exists() for name in record["arrays"])
    return record if whole else None


def _part_mapper(home: Path, label: str) -> Mapper:
    """As `tokens.map_batches`, but what is finished is kept and not done again."""

    def mapper(fn: BatchFn, batches: Sequence[Batch]) -> np.ndarray:
        parts = home / "parts"
        parts.mkdir(exist_ok=True)
        # values[i] belongs to batches[i]; parts were written in the order of batches.
        values = [rows for path in _parts(home) for rows in _load_part(path)]
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


def _parts(home: Path) -> list[Path]:
    return sorted((home / "parts").glob("*.npz"))


def _load_part(path: Path) -> list[np.ndarray]:
    with np.load(path) as part:
        return [part[f"arr_{i}"] for i in range(len(part.files) - 1)]


def _part_seconds(home: Path) -> float:
    total = 0.0
    for path in _parts(home):
        with np.load(path) as part:
            total += float(part["seconds"])
    return total
