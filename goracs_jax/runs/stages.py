"""One folder per run: the result of each stage, read back if its inputs are the same.

A stage is named by what it computes and the SHA-256 of all that its result depends on.
Another input or setting gives another name, so results of two settings are never mixed.
A stage that was finished is read back; one that was killed resumes after its last part.
Files appear under their final names only when they are whole.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from goracs_jax.buckets import deliver
from goracs_jax.files import atomic
from goracs_jax.llm.batches import Mapper
from goracs_jax.mesh import leads, meet
from goracs_jax.runs.identity import Identity, digests_of, identity_of
from goracs_jax.runs.parts import PARTS, part_mapper, seconds_of_parts
from goracs_jax.runs.records import UNREADABLE, read_record

#: Part results are written at least this often, in seconds: what a kill can cost.
PART_SECONDS = 10.0

Arrays = dict[str, np.ndarray]


class Stage(NamedTuple):
    """A computation whose result is stored: its name, its inputs, and how to run it.

    `prepare` loads and checks what is needed, so that bad input shows before any stage
    has run. `check` does so in place of `prepare` if that would train an adapter, which
    another stage trains. `compute` gets a mapper for batches that stores part results,
    and returns arrays by name. `revision` is raised when they change by more than
    rounding. `whole` tells whether they are a result to keep: one of a search that was
    stopped is returned, and computed anew the next time.
    """

    name: str
    inputs: Mapping[str, Any]
    compute: Callable[[Mapper], Arrays]
    prepare: Callable[[], object] = lambda: None
    revision: int = 1
    check: Callable[[], object] | None = None
    whole: Callable[[Arrays], bool] = lambda _: True

    @property
    def identity(self) -> Identity:
        """All that the result depends on: the inputs and the revision."""
        return identity_of(self.inputs, self.revision)

    @property
    def basis(self) -> Mapping[str, Any]:
        """What the inputs of a stage that builds on this one contain of it.

        Revision 1 is left out, as in version 0.5.0, so that its names stay valid.
        """
        return self.inputs if self.revision == 1 else self.identity

    def home(self, folder: Path) -> Path:
        """Return the folder of the stage, whose name depends on the identity."""
        return self._homes(folder)[0]

    def is_done(self, folder: Path) -> bool:
        """Tell whether the folder of the run has a finished result."""
        return any(_record(home) is not None for home in self._homes(folder))

    def adopt(self, folder: Path) -> None:
        """Rename what version 0.5.0 left of this stage, if today's name is free."""
        home, earlier = self._homes(folder)
        if leads() and earlier.exists() and not home.exists():
            earlier.rename(home)
        meet("former names are gone")

    def _homes(self, folder: Path) -> tuple[Path, Path]:
        now, before = digests_of(self.identity)
        named = lambda sha: folder / "stages" / f"{self.name}-{sha[:16]}"
        return named(now), named(before)


class Result(NamedTuple):
    """The arrays of a stage and the seconds that they took, in all runs together."""

    arrays: Arrays
    seconds: float


def run_stage(
    folder: Path, stage: Stage, *, part_seconds: float = PART_SECONDS
) -> Result:
    """Read a finished stage back, or compute it, from the parts of a killed run.

    Args:
        folder: The folder of the run.
        stage: What to compute.
        part_seconds: Part results are written at least this often.

    Returns:
        Its arrays, and the seconds that all runs together spent on them.
    """
    stage.adopt(folder)
    home = stage.home(folder)
    if done := _read_done(home):
        return done
    home.mkdir(parents=True, exist_ok=True)
    earlier = seconds_of_parts(home)
    started = time.perf_counter()
    arrays = stage.compute(part_mapper(home, stage.name, part_seconds))
    seconds = earlier + time.perf_counter() - started
    if leads() and stage.whole(arrays):
        for name, array in arrays.items():
            with atomic(home / f"{name}.npy") as file:
                np.save(file, array)
        record = {"arrays": list(arrays), "seconds": seconds, "inputs": stage.inputs}
        with atomic(home / "done.json") as file:
            file.write(json.dumps(record, indent=1).encode())
        shutil.rmtree(home / PARTS, ignore_errors=True)
        deliver(home)
    meet("a stage is done")
    return Result(arrays, seconds)


def check_stages(folder: Path, stages: Iterable[Stage]) -> None:
    """Open and check all that the stages that are not done would read.

    Args:
        folder: The folder of the run.
        stages: What it would compute.

    Raises:
        InputError: The first thing that is wrong.
    """
    for stage in stages:
        if not stage.is_done(folder):
            (stage.check or stage.prepare)()


def _record(home: Path) -> dict[str, Any] | None:
    """Read the record of a finished stage; None where a file of it is lost."""
    record = read_record(home / "done.json")
    if not record:
        return None
    whole = all((home / f"{name}.npy").exists() for name in record["arrays"])
    return record if whole else None


def _read_done(home: Path) -> Result | None:
    """Read a finished stage back; None where a file of it is lost or damaged."""
    if not (record := _record(home)):
        return None
    arrays = {}
    for name in record["arrays"]:
        try:
            # Opened here, because np.load leaves a damaged file open.
            with (home / f"{name}.npy").open("rb") as file:
                arrays[name] = np.load(file)
        except UNREADABLE:
            return None
    return Result(arrays, record["seconds"])
