"""The classes of a label-aware run, checked against its budgets."""

from collections.abc import Sequence

import numpy as np

from goracs_jax.errors import InputError
from goracs_jax.files import digest
from goracs_jax.runs.opened import Pool, read_npy
from goracs_jax.runs.say import say
from goracs_jax.selection.classes import (
    Classes,
    class_budgets,
    class_notes,
    make_classes,
)
from goracs_jax.selection.problem import check_budget
from goracs_jax.settings import Select


def read_labels(
    settings: Select, shape: tuple[int, int], *pools: Pool
) -> Classes | None:
    """The labels that the settings ask for, if any; every budget is checked.

    Args:
        settings: Of the verb.
        shape: (N, M).
        pools: Training and validation examples, where there are texts.

    Raises:
        InputError: Labels that do not fit the rows, or a budget that cannot be had.
    """
    labels = _labels(settings, shape, pools)
    for budget in settings.budget:
        check_budget(shape[0], budget)
        if labels:
            class_budgets(labels, budget)
    return labels


def labels_of(train: Pool, valid: Pool) -> Classes:
    """Every output is a class."""
    one, two = (
        np.array([example.record["output"] for example in pool.examples])
        for pool in (train, valid)
    )
    return make_classes(one, two, (len(one), len(two)))


def identity_of(labels: Classes | None) -> dict[str, str]:
    """What names the stages that depend on labels: nothing without them."""
    if not labels:
        return {}
    classes, *sides = labels
    return {"labels": digest([classes, *(side.tolist() for side in sides)])}


def say_classes(labels: Classes, budget: int) -> None:
    """Say which classes do not get their share."""
    for note in class_notes(labels, budget):
        say(f"budget {budget}: {note}")


def _labels(
    settings: Select, shape: tuple[int, int], pools: Sequence[Pool]
) -> Classes | None:
    train, valid = settings.train_labels, settings.valid_labels
    if settings.by_label:
        if train or valid:
            raise InputError("give --by-label or files of labels, not both.")
        if len(pools) < 2:
            raise InputError(
                "--by-label takes the outputs of texts: give --train and --valid, or "
                "--train-labels and --valid-labels."
            )
        return labels_of(*pools)
    if not train and not valid:
        return None
    if not train or not valid:
        raise InputError("give --train-labels and --valid-labels together.")
    kind = "integers or strings"
    one = read_npy(train, "training labels", kind)
    two = read_npy(valid, "validation labels", kind)
    return make_classes(one, two, shape)
