"""The classes of both sets, and how a budget is shared among them."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from goracs_jax.errors import InputError
from goracs_jax.selection.problem import check_budget
from goracs_jax.shapes import AnyArray

Counts = Int[np.ndarray, " classes"]

# Classes that a message names.
NAMED = 5


class Labels(NamedTuple):
    """The class of every row of both sets, as a number, and what the classes are."""

    classes: tuple[int | str, ...]  # sorted
    train: Int[np.ndarray, " train"]
    valid: Int[np.ndarray, " valid"]

    @property
    def counts(self) -> tuple[Counts, Counts]:
        """Rows of every class: in training, in validation."""
        k = len(self.classes)
        return np.bincount(self.train, minlength=k), np.bincount(
            self.valid, minlength=k
        )


def make_labels(
    train: Shaped[AnyArray, "..."],
    valid: Shaped[AnyArray, "..."],
    shape: tuple[int, int],
) -> Labels:
    """Number the classes of both sets.

    Args:
        train: The class of every training row, integers or strings, shape [N].
        valid: The class of every validation row, likewise, shape [M].
        shape: (N, M).

    Returns:
        The labels.

    Raises:
        InputError: A length that does not fit, other types, or two types.

    >>> make_labels(np.array(["Yes", "No"]), np.array(["Yes"]), (2, 1)).train.tolist()
    [1, 0]
    """
    sides = []
    for name, labels, size in zip(
        ("training", "validation"), (train, valid), shape, strict=True
    ):
        labels = np.asarray(labels)
        if labels.shape != (size,) or labels.dtype.kind not in "biuU":
            raise InputError(
                f"{name} labels must be {size} integers or strings, one a row, got "
                f"shape {list(labels.shape)} of {labels.dtype}."
            )
        sides.append(labels)
    if (sides[0].dtype.kind == "U") != (sides[1].dtype.kind == "U"):
        raise InputError(
            f"training labels are {sides[0].dtype}, validation labels {sides[1].dtype}:"
            " give integers for both or strings for both."
        )
    # Python's own integers and strings: NumPy would merge types to a common one.
    lists = [labels.tolist() for labels in sides]
    classes = tuple(sorted({*lists[0], *lists[1]}))
    number = {label: c for c, label in enumerate(classes)}
    numbers = (np.array([number[label] for label in labels]) for labels in lists)
    return Labels(classes, *numbers)


def largest_remainder(weights: Counts, seats: int) -> Counts:
    """Whole numbers that add up to `seats`, in proportion to the weights.

    Every class gets floor(seats w_c / sum w); what is left goes, one each, to the
    largest remainders (Hamilton's rule). Of equal ones the class of more weight wins,
    and then the earlier one.

    Args:
        weights: w_c >= 0, not all zero, shape [K].
        seats: What to share out.

    >>> largest_remainder(np.array([5, 3, 2]), 4).tolist()
    [2, 1, 1]
    """
    whole, rest = np.divmod(weights * seats, weights.sum())
    order = np.lexsort((-weights, -rest))
    whole[order[: seats - whole.sum()]] += 1
    return whole


def class_budgets(labels: Labels, budget: int) -> Counts:
    """n_c, the rows to choose in every class: they add up to n.

    n is shared in proportion to the classes' validation rows, by the largest remainder.
    A class with fewer training rows than that gives all it has, and what it leaves is
    shared by the others in the same way.

    Args:
        labels: The classes of both sets.
        budget: n.

    Returns:
        Shape [K]; 0 for a class that is absent from validation.

    Raises:
        InputError: As `check_budget`; or the classes of the validation set have fewer
            training rows than n.

    >>> labels = make_labels(np.array([0, 1, 1, 1, 2]), np.array([0, 0, 1]), (5, 3))
    >>> class_budgets(labels, 3).tolist()
    [1, 2, 0]
    """
    check_budget(len(labels.train), budget)
    train, valid = labels.counts
    shared = valid > 0
    if budget > (most := train[shared].sum()):
        raise InputError(
            f"budget must be at most {most}, got {budget}: validation lacks classes "
            f"{_names(labels, ~shared)}, so their training examples are not chosen."
        )
    budgets = np.zeros(len(train), np.int64)
    while True:
        # Together the classes have rows enough, so that not all can be short of them.
        left = int(budget - budgets[~shared].sum())
        budgets[shared] = largest_remainder(valid[shared], left)
        short = shared & (budgets > train)
        if not short.any():
            return budgets
        budgets[short] = train[short]
        shared &= ~short


def class_notes(labels: Labels, budget: int) -> list[str]:
    """What a user should know of classes that do not get their share, a line each.

    >>> labels = make_labels(np.array([0, 1, 1, 2]), np.array([0, 0, 1]), (4, 3))
    >>> for note in class_notes(labels, 3):
    ...     note
    'classes absent from validation, nothing of them is chosen: 2'
    'classes with fewer rows than their share, others get the rest of it: 0'
    """
    train, valid = labels.counts
    wanted = largest_remainder(valid, budget)
    notes = {
        "absent from validation, nothing of them is chosen": valid == 0,
        "with fewer rows than their share, others get the rest of it": wanted > train,
        "with too small a share for a row, nothing of them is chosen": (
            (valid > 0) & (train > 0) & (class_budgets(labels, budget) == 0)
        ),
    }
    return [
        f"classes {note}: {_names(labels, of)}"
        for note, of in notes.items()
        if of.any()
    ]


def given_labels(
    train: AnyArray | None,
    valid: AnyArray | None,
    shape: tuple[int, int],
    budgets: Sequence[int],
) -> Labels | None:
    """The labels that a caller gave, if any, with a warning of classes that fall short.

    Raises:
        InputError: One side alone, labels that do not fit, or a budget out of range.

    >>> given_labels(None, None, (5, 3), [2])
    """
    if train is None and valid is None:
        return None
    if train is None or valid is None:
        raise InputError("give train_labels and valid_labels together.")
    labels = make_labels(train, valid, shape)
    for budget in budgets:
        check_budget(shape[0], budget)
        for note in class_notes(labels, budget):
            warnings.warn(f"budget {budget}: {note}", stacklevel=3)
    return labels


def _names(labels: Labels, of: Sequence[bool] | np.ndarray) -> str:
    """The first few of some classes."""
    names = [str(labels.classes[c]) for c in np.flatnonzero(of)]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
