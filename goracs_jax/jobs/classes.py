"""The classes of a label-aware selection: from files, or from the outputs of texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.inputs.array_files import read_array
from goracs_jax.runs.kept import Kept
from goracs_jax.runs.opened import Pool
from goracs_jax.runs.say import say
from goracs_jax.selection.classes import (
    Classes,
    class_budgets,
    class_notes,
    make_classes,
)
from goracs_jax.selection.problem import check_budget


class ClassFlags(NamedTuple):
    """Where the classes come from: files of both sets, or the outputs of texts."""

    train: Path | None
    valid: Path | None
    by_label: bool


def read_classes(
    flags: ClassFlags,
    sides: tuple[Kept, Kept],
    pools: Sequence[Pool],
    budgets: Sequence[int],
) -> Classes | None:
    """Read the classes that are asked for, if any, and check every budget.

    Args:
        flags: Where they come from.
        sides: The training and the validation rows that are used; files of classes have
            one for each row of the whole file.
        pools: Training and validation examples of these rows, where there are texts.
        budgets: Values of n.

    Raises:
        InputError: Classes that do not fit the rows, or a budget that cannot be met.
    """
    classes = _read(flags, sides, pools)
    check_budgets(budgets, len(sides[0].rows), classes)
    return classes


def check_budgets(
    budgets: Sequence[int], n_train: int, classes: Classes | None = None
) -> None:
    """Refuse budgets that N rows, or the rows of their classes, cannot meet.

    Raises:
        InputError: A budget is out of range.
    """
    for budget in budgets:
        check_budget(n_train, budget)
        if classes:
            class_budgets(classes, budget)


def say_classes(classes: Classes | None, budgets: Sequence[int]) -> None:
    """Say which classes do not get their share of a budget."""
    if classes is None:
        return
    for budget in budgets:
        for note in class_notes(classes, budget):
            say(f"budget {budget}: {note}")


def classes_of(train: Pool, valid: Pool) -> Classes:
    """Take the output of each example as its class."""
    one, two = np.array(train.outputs), np.array(valid.outputs)
    return make_classes(one, two, (len(one), len(two)))


def _read(
    flags: ClassFlags, sides: tuple[Kept, Kept], pools: Sequence[Pool]
) -> Classes | None:
    train, valid, by_label = flags
    if by_label:
        if train or valid:
            raise InputError("give --by-label or files of labels, not both.")
        if len(pools) < 2:
            raise InputError(
                "--by-label takes the outputs of texts: give --train and --valid, or "
                "--train-labels and --valid-labels."
            )
        return classes_of(*pools)
    if not train and not valid:
        return None
    if not train or not valid:
        raise InputError("give --train-labels and --valid-labels together.")
    kind = "integers or strings"
    one = read_array(train, "training labels", kind)
    two = read_array(valid, "validation labels", kind)
    classes = make_classes(one, two, (sides[0].of, sides[1].of))
    return classes._replace(
        train=sides[0].take(classes.train), valid=sides[1].take(classes.valid)
    )
