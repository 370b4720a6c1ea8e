"""What every front door checks before a selection, and the choice that it makes."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from goracs_jax.cost import check_row_scores
from goracs_jax.errors import InputError
from goracs_jax.selection.by_class import by_class
from goracs_jax.selection.classes import Classes
from goracs_jax.selection.method import Method, find_method, heeding_methods
from goracs_jax.selection.problem import (
    Problem,
    Selection,
    check_budget,
    check_memory,
)
from goracs_jax.selection.wishes import total
from goracs_jax.selection.wishes.feasible import check_wishes

#: The scores of training rows that a problem may have, as messages name them.
SCORES = {
    "grad_norms": "gradient norms",
    "prediction_errors": "prediction errors",
    "rewards": "rewards",
}


def checked_choice(
    problem: Problem,
    budgets: Sequence[int],
    method: str | Method,
    classes: Classes | None = None,
) -> Callable[..., Selection]:
    """Check everything that a selection is given, for all front doors alike.

    Args:
        problem: The cost, the wishes, and the scores that methods rank by.
        budgets: All values of n to come.
        method: A name or a method.
        classes: The classes of both sets, where the selection is to be label-aware.

    Returns:
        The method's `choose(problem, budget, *, key)`, label-aware where there are
        classes, and beside the rows that are trained on already where there are such.

    Raises:
        InputError: As `goracs`.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> checked_choice(Problem(make_cost(x, x)), [2], "error")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: method error needs prediction errors, got none: ...
    """
    method = find_method(method)
    cost = problem.cost
    if not all(bool(jnp.isfinite(part).all()) for part in jax.tree.leaves(cost)):
        raise InputError("the cost has NaN or infinity: make it with `make_cost`.")
    n_train, n_valid = cost.shape
    for budget in budgets:
        check_budget(n_train, budget)
        check_wishes(problem.wishes, budget)
        check_memory(total(problem.wishes, budget), n_valid)
    for need, name in SCORES.items():
        scores = getattr(problem, need)
        if scores is not None:
            check_row_scores(scores, n_train, name, signed=need == "rewards")
        elif need in method.needs:
            raise InputError(
                f"method {method.name} needs {name}, got none: give one per "
                "training row."
            )
    wished, weighted = problem.wishes is not None, cost.mass is not None
    check_heeds(method, wished, weighted, bool(classes))
    choose = by_class(method, classes) if classes else method.choose
    trained = None if problem.wishes is None else problem.wishes.trained
    return choose if trained is None else _beside(choose, np.asarray(trained))


def check_heeds(method: Method, wished: bool, weighted: bool, by_label: bool) -> None:
    """Refuse wishes and weights that a method, or label-aware selection, ignores.

    >>> check_heeds(find_method("itra"), True, False, False)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: method itra cannot heed wishes about rows: ...
    """
    if not wished and not weighted:
        return
    what = "wishes about rows" if wished else "weights of validation rows"
    if by_label:
        raise InputError(
            f"a label-aware selection cannot heed {what}: leave out the labels, or "
            "give them as groups."
        )
    if not getattr(method, "heeds", False):
        raise InputError(
            f"method {method.name} cannot heed {what}: take "
            f"{', '.join(heeding_methods())}, or leave them out."
        )


def _beside(
    choose: Callable[..., Selection], trained: Bool[np.ndarray, " train"]
) -> Callable[..., Selection]:
    """Return the choice of n more rows beside those that are trained on already."""

    def choose_next(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
        found = choose(problem, budget + int(trained.sum()), key=key)
        return found._replace(indices=found.indices[~trained[found.indices]])

    return choose_next
