"""Checkpoints of a training run (orbax) and its metrics file, for resuming."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from goracs_jax.buckets import deliver
from goracs_jax.disk import room_for
from goracs_jax.files import atomic
from goracs_jax.mesh import leads

LogEntry = dict[str, Any]  # the metrics of one step or one validation


class State(NamedTuple):
    """Everything that the next step depends on, and the adapters to keep so far."""

    lora: PyTree
    opt_state: PyTree
    kept: PyTree  # of the lowest validation loss, of the last step, or their mean
    step: int = 0  # number of steps taken
    best_loss: float = float("inf")  # the validation loss of what is kept
    best_epoch: int = 0
    waited: int = 0  # validations since the lowest loss

    @property
    def _numbers(self) -> dict[str, Any]:
        return {k: v for k, v in self._asdict().items() if k not in ARRAYS}


ARRAYS = ("lora", "opt_state", "kept")


class Store(NamedTuple):
    """The state that training continues from, and the function that saves a state."""

    state: State
    save: Callable[[State], None]


@contextlib.contextmanager
def checkpoints(folder: Path, fresh: State) -> Iterator[Store]:
    """Open a folder of checkpoints and restore the newest one, if there is any.

    Args:
        folder: The folder. Only the newest checkpoint is kept, and an incomplete one is
            deleted.
        fresh: The state to start from if there is no checkpoint. It also gives the
            shapes and types of all arrays.

    Yields:
        The state to continue from, and the function that saves a state.
    """
    import orbax.checkpoint as ocp  # imported here: it takes a second

    options = ocp.CheckpointManagerOptions(
        max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    # Store only the leaves: the files then do not depend on how the trees are nested.
    leaves, tree = jax.tree.flatten([getattr(fresh, name) for name in ARRAYS])

    def save(state: State) -> None:
        arrays = jax.tree.leaves([getattr(state, name) for name in ARRAYS])
        with room_for(folder):
            manager.save(
                state.step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays),
                    numbers=ocp.args.JsonSave(state._numbers),
                ),
            )
        deliver(folder.parent, often=False)  # with the metrics up to this step

    here = Path(os.path.realpath(folder))  # the local one, if it is sent to a bucket
    with ocp.CheckpointManager(here, options=options) as manager:
        state = fresh
        if (step := manager.latest_step()) is not None:
            found = manager.restore(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardRestore(leaves),
                    numbers=ocp.args.JsonRestore(),
                ),
            )
            trees = jax.tree.unflatten(tree, found.arrays)
            state = State(*trees, **found.numbers)
        yield Store(state, save)


class MetricsLog:
    """The metrics of steps and validations: a list and, line by line, a JSONL file.

    Of several processes, the first one writes the file.

    Args:
        path: The file, or None to keep only the list. Entries that an earlier run left
            there are read.
        last_step: The step of the checkpoint that training continues from. Later
            entries are dropped, because the run makes them again.
    """

    def __init__(self, path: Path | None, last_step: int):
        self.path, self.entries = path, []
        if path is None:
            return
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # a line cut off by a kill
                entry = json.loads(line)
                if entry["step"] <= last_step:
                    self.entries.append(entry)
        if leads():
            with atomic(path) as file:
                file.writelines(_line(entry).encode() for entry in self.entries)

    def add(self, entry: LogEntry) -> None:
        """Add an entry to the list and the file."""
        self.entries.append(entry)
        if self.path is not None and leads():
            with self.path.open("a") as file:
                file.write(_line(entry))


def _line(entry: LogEntry) -> str:
    return json.dumps(entry) + "\n"
