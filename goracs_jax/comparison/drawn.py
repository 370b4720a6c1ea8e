"""The examples that each seed draws, and validation cut in two: by content alone.

Neither depends on the order of the lines in a file. Examples that are drawn, or joined,
are files of their own in the folder that trials share, under the hash of what is in
them.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from goracs_jax.choices import Task
from goracs_jax.data.examples import Example, json_lines, write_jsonl
from goracs_jax.errors import InputError
from goracs_jax.files import prepare_folder
from goracs_jax.jobs.classes import classes_of
from goracs_jax.jobs.evaluate import users_of
from goracs_jax.runs.opened import Pool
from goracs_jax.selection.classes import Classes
from goracs_jax.training.order import Order

TrainRows = Int[np.ndarray, " train"]
ValidRows = Int[np.ndarray, " valid"]


class Draw(NamedTuple):
    """What the trials of a seed choose from, and what they choose and validate for."""

    train: Pool
    valid: Pool
    train_rows: TrainRows | None  # of the whole pool; None if nothing is drawn
    valid_rows: ValidRows | None

    @property
    def rows(self) -> tuple[TrainRows | None, ValidRows | None]:
        """The rows of both sets."""
        return self.train_rows, self.valid_rows

    @property
    def classes(self) -> Classes:
        """The outputs of both sets, for methods that are label-aware."""
        return classes_of(self.train, self.valid)


def check_counts(counts: tuple[int | None, int | None], pools: Sequence[Pool]) -> None:
    """Refuse to draw more examples than there are.

    Raises:
        InputError: --draw-train or --draw-valid is out of range.
    """
    for count, pool, flag in zip(counts, pools, ("train", "valid"), strict=True):
        most = len(pool.examples)
        if count is not None and not 1 <= count <= most:
            raise InputError(
                f"--draw-{flag} must be in [1, {most}], the number of examples to draw "
                f"from, got {count}."
            )


def draw(
    train: Pool,
    valid: Pool,
    counts: tuple[int | None, int | None],
    seed: int,
    folder: Path,
) -> Draw:
    """Draw training and validation examples with a seed, without replacement.

    Args:
        train: The whole pool.
        valid: All validation examples that may be drawn.
        counts: How many of each are drawn; None takes them as they are.
        seed: The seed.
        folder: Where the files of what is drawn belong.
    """
    drawn, taken = [], []
    for pool, count, name in zip(
        (train, valid), counts, ("train", "valid"), strict=True
    ):
        rows = None
        if count is not None:
            rows = _by_content(pool, seed)[:count]
            pool = pool_of([pool.examples[row] for row in rows], folder, name)
        drawn.append(pool)
        taken.append(rows)
    return Draw(*drawn, *taken)


def halves(valid: Pool, folder: Path) -> tuple[Pool, Pool]:
    """Cut validation in two by its users: the target, and what is judged.

    Examples that do not name their users are cut by their content.

    Which half a user is in depends on the names of all users, and on no seed, so that
    all trials are judged by the same examples.

    Args:
        valid: The validation examples.
        folder: Where the files of the halves belong.

    Raises:
        InputError: There is one user only.
    """
    users = users_of(valid)
    if any(example.record.get("user") is None for example in valid.examples):
        # Numbers of lines would make the halves depend on the order of the file.
        lines = json_lines(example.record for example in valid.examples)
        users = [hashlib.sha256(line).hexdigest() for line in lines]
    names = sorted(set(users))
    if len(names) < 2:
        raise InputError(
            f"{valid.path} has one user only, which cannot be cut in two: give "
            "examples of more users, or leave --split-valid out where it is given."
        )
    order = Order.of_contents((name.encode() for name in names), 0).epoch(0)
    target = {names[i] for i in order[: -(-len(names) // 2)]}
    sides = ([], [])
    for row in _by_content(valid, 0):
        sides[users[row] not in target].append(valid.examples[row])
    one, two = (pool_of(side, folder, "valid") for side in sides)
    return one, two


def judged_with(test: Pool, half: Pool, task: Task, folder: Path) -> Pool | None:
    """Join the half that judges to the test examples, if its records allow it.

    Args:
        test: The test examples.
        half: The half of validation that is no target.
        task: The task: seqrec needs a target and its negatives in each record. Where
            test examples name their users, the others must do so, too.
        folder: Where the file of both belongs.

    Returns:
        All examples that are judged, or None.
    """
    needed = {"target", "negatives"} if task == "seqrec" else set()
    if any("user" in example.record for example in test.examples):
        needed.add("user")
    if not all(needed <= example.record.keys() for example in half.examples):
        return None
    return pool_of([*test.examples, *half.examples], folder, "test")


def _by_content(pool: Pool, seed: int) -> TrainRows:
    """Order the rows of a pool at random, by what is in them and a seed."""
    lines = json_lines(example.record for example in pool.examples)
    return Order.of_contents(lines, seed).epoch(0)


def pool_of(examples: Sequence[Example], folder: Path, name: str) -> Pool:
    """Make a pool of some examples, whose file is yet to be written.

    Args:
        examples: The examples.
        folder: Where the file belongs.
        name: The start of its name, before the hash.
    """
    sha256 = hashlib.sha256()
    for line in json_lines(example.record for example in examples):
        sha256.update(line)
    if keys := examples[0].keys.names:
        sha256.update(json.dumps(keys, sort_keys=True).encode())
    found = sha256.hexdigest()
    return Pool(list(examples), found, folder / f"{name}-{found[:16]}.jsonl")


def write_pools(pools: Iterable[Pool], folder: Path) -> None:
    """Write the files of pools that belong into a folder and are not there yet."""
    prepare_folder(folder, 0)
    for pool in pools:
        if pool.path.parent == folder and not pool.path.exists():
            write_jsonl(pool.path, (example.record for example in pool.examples))
