"""The classes of both sets, and how a budget is shared among them."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_array
from goracs_jax.selection.problem import check_budget
from goracs_jax.shapes import GivenArray

Counts = Int[np.ndarray, " classes"]

# A message names at most this many classes.
NAMED = 5


class Classes(NamedTuple):
    """The number of the class of every row of both sets, and the classes' names."""

    names: tuple[int | str, ...]  # sorted
    train: Int[np.ndarray, " train"]
    valid: Int[np.ndarray, " valid"]

    @property
    def counts(self) -> tuple[Counts, Counts]:
        """The number of rows of every class, in training and in validation."""
        k = len(self.names)
        return np.bincount(self.train, minlength=k), np.bincount(
            self.valid, minlength=k
        )


def make_classes(
    train: GivenArray,
    valid: GivenArray,
    shape: tuple[int, int],
) -> Classes:
    """Number the classes of both sets.

    Args:
        train: The class of every training row, integers or strings, shape [N].
        valid: The class of every validation row, likewise, shape [M].
        shape: (N, M).

    Returns:
        The classes.

    Raises:
        InputError: A length that does not fit, other types, or two types.

    >>> make_classes(np.array(["Yes", "No"]), np.array(["Yes"]), (2, 1)).train.tolist()
    [1, 0]
    """
    sides = []
    for name, given, size in zip(
        ("training", "validation"), (train, valid), shape, strict=True
    ):
        given = as_array(given, f"{name} labels")
        if given.shape != (size,) or given.dtype.kind not in "biuU":
            raise InputError(
                f"{name} labels must be {size} integers or strings, one per row, got "
                f"shape {list(given.shape)} of {given.dtype}."
            )
        sides.append(given)
    if (sides[0].dtype.kind == "U") != (sides[1].dtype.kind == "U"):
        raise InputError(
            f"training labels are {sides[0].dtype}, validation labels {sides[1].dtype}:"
            " give integers for both or strings for both."
        )
    # Python's integers and strings, because NumPy would convert both to one type.
    lists = [side.tolist() for side in sides]
    names = tuple(sorted({*lists[0], *lists[1]}))
    number = {name: c for c, name in enumerate(names)}
    numbers = (np.array([number[name] for name in side]) for side in lists)
    return Classes(names, *numbers)


def largest_remainder(weights: Counts, seats: int) -> Counts:
    """Share seats among classes in proportion to weights (Hamilton's rule).

    Every class gets floor(seats w_c / sum w). The seats that are left go, one each, to
    the largest remainders; of equal remainders the class of more weight wins, and then
    the earlier one.

    Args:
        weights: w_c >= 0, not all zero, shape [K].
        seats: The number to share out.

    Returns:
        Whole numbers that add up to `seats`, shape [K].

    >>> largest_remainder(np.array([5, 3, 2]), 4).tolist()
    [2, 1, 1]
    """
    whole, rest = np.divmod(weights * seats, weights.sum())
    order = np.lexsort((-weights, -rest))
    whole[order[: seats - whole.sum()]] += 1
    return whole


def class_budgets(classes: Classes, budget: int) -> Counts:
    """Share a budget n among the classes: n_c rows of each, which add up to n.

    n is shared in proportion to the classes' validation rows, by the largest remainder.
    A class with fewer training rows than that gives all it has, and the rest of its
    share goes to the others in the same way.

    Args:
        classes: The classes of both sets.
        budget: n.

    Returns:
        Shape [K]; 0 for a class that is absent from validation.

    Raises:
        InputError: As `check_budget`; or the classes of the validation set have fewer
            training rows than n.

    >>> classes = make_classes(np.array([0, 1, 1, 1, 2]), np.array([0, 0, 1]), (5, 3))
    >>> class_budgets(classes, 3).tolist()
    [1, 2, 0]
    """
    check_budget(len(classes.train), budget)
    train, valid = classes.counts
    shared = valid > 0
    if budget > (most := train[shared].sum()):
        raise InputError(
            f"budget must be at most {most}, got {budget}: validation lacks classes "
            f"{_names(classes, ~shared)}, so their training examples are not chosen."
        )
    budgets = np.zeros(len(train), np.int64)
    while True:
        # Together the classes have enough rows, so not all of them can be short.
        left = int(budget - budgets[~shared].sum())
        budgets[shared] = largest_remainder(valid[shared], left)
        short = shared & (budgets > train)
        if not short.any():
            return budgets
        budgets[short] = train[short]
        shared &= ~short


def class_notes(classes: Classes, budget: int) -> list[str]:
    """Name the classes that do not get their share, with one line per reason.

    >>> classes = make_classes(np.array([0, 1, 1, 2]), np.array([0, 0, 1]), (4, 3))
    >>> for note in class_notes(classes, 3):
    ...     note
    'classes absent from validation, nothing of them is chosen: 2'
    'classes with fewer rows than their share, others get the rest of it: 0'
    """
    train, valid = classes.counts
    wanted = largest_remainder(valid, budget)
    notes = {
        "absent from validation, nothing of them is chosen": valid == 0,
        "with fewer rows than their share, others get the rest of it": wanted > train,
        "with too small a share for a row, nothing of them is chosen": (
            (valid > 0) & (train > 0) & (class_budgets(classes, budget) == 0)
        ),
    }
    return [
        f"classes {note}: {_names(classes, of)}"
        for note, of in notes.items()
        if of.any()
    ]


def given_classes(
    train: GivenArray | None,
    valid: GivenArray | None,
    shape: tuple[int, int],
    budgets: Sequence[int],
) -> Classes | None:
    """Return the classes of the labels that a caller gave, or None without labels.

    A warning names the classes that do not get their share of a budget.

    Args:
        train: The label of every training row, shape [N].
        valid: The label of every validation row, shape [M].
        shape: (N, M).
        budgets: Values of n.

    Raises:
        InputError: One side alone, labels that do not fit, or a budget out of range.

    >>> given_classes(None, None, (5, 3), [2])
    """
    if train is None and valid is None:
        return None
    if train is None or valid is None:
        raise InputError("give train_labels and valid_labels together.")
    classes = make_classes(train, valid, shape)
    for budget in budgets:
        check_budget(shape[0], budget)
        for note in class_notes(classes, budget):
            warnings.warn(f"budget {budget}: {note}", stacklevel=3)
    return classes


def _names(classes: Classes, of: Sequence[bool] | np.ndarray) -> str:
    """Name the first few of some classes."""
    names = [str(classes.names[c]) for c in np.flatnonzero(of)]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
