"""Resume: the state of a training on disk (orbax), and the lines of its metrics."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree


class State(NamedTuple):
    """All that the next step depends on, and the best so far."""

    lora: PyTree
    opt_state: PyTree
    best: PyTree  # adapters at the least validation loss
    step: int = 0  # steps done
    best_loss: float = float("inf")
    best_epoch: int = 0
    waited: int = 0  # validations since the best
    seconds: float = 0.0  # spent on the steps done, over all runs

    @property
    def _numbers(self) -> dict[str, Any]:
        return {k: v for k, v in self._asdict().items() if k not in ARRAYS}


ARRAYS = ("lora", "opt_state", "best")


class Store(NamedTuple):
    """Where a training stands and how it is kept."""

    state: State
    save: Callable[[State], None]


@contextlib.contextmanager
def checkpoints(folder: Path, fresh: State) -> Iterator[Store]:
    """The state that an earlier run left, or a fresh one.

    Args:
        folder: Only the newest checkpoint stays there; a half-written one is dropped.
        fresh: Where training starts, with all shapes and types.
    """
    import orbax.checkpoint as ocp  # takes a second: only where it is needed

    options = ocp.CheckpointManagerOptions(
        max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    # Leaves alone: what is on disk does not depend on how the trees are nested.
    leaves, tree = jax.tree.flatten([getattr(fresh, name) for name in ARRAYS])

    def save(state: State) -> None:
        arrays = jax.tree.leaves([getattr(state, name) for name in ARRAYS])
        manager.save(
            state.step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays),
                numbers=ocp.args.JsonSave(state._numbers),
            ),
        )

    with ocp.CheckpointManager(folder.resolve(), options=options) as manager:
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


class Metrics:
    """Records of steps and validations: a list and, line by line, a JSONL file.

    Lines of steps after `last_step` are dropped: a run that was killed after its
    checkpoint makes them again.
    """

    def __init__(self, path: Path | None, last_step: int):
        self.path, self.records = path, []
        if path is None:
            return
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # a line cut off by a kill
                record = json.loads(line)
                if record["step"] <= last_step:
                    self.records.append(record)
        part = path.with_name(path.name + ".part")
        part.write_text("".join(json.dumps(r) + "\n" for r in self.records))
        os.replace(part, path)

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record; it is in the file when this returns."""
        self.records.append(record)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
