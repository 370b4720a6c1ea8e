r"""Label-aware selection for K classes (GORACS, KDD 2025, Algorithm 2).

Both sets are split by class. Class c gets a budget n_c in proportion to m_c, its rows
among the M of validation; a method runs inside every class; the union is the coreset.
The objective that is reported is the exact POO of the union against the whole
validation set. Where n_c = n m_c / M exactly, the plans of the classes side by side are
a plan of the whole:

    POO(S) <= sum_c (m_c / M) POO_c(S_c).

With rounded budgets not even that is certain, and the classes' own lower bounds say
nothing of the whole, since mass may cross between classes.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from goracs_jax.cost import Cost, materialize, some_rows, to_points
from goracs_jax.selection.bound import lower_bound
from goracs_jax.selection.classes import Classes, class_budgets
from goracs_jax.selection.method import LowerBound, Method
from goracs_jax.selection.problem import Problem, Selection, Step, objective
from goracs_jax.selection.search.greedy import greedy
from goracs_jax.shapes import AnyArray


class ClassRow(NamedTuple):
    """One class in the table of a label-aware selection."""

    label: int | str
    train: int  # rows in training
    valid: int  # rows in validation
    budget: int  # rows chosen
    objective: float  # exact POO of those within the class; NaN where there are none


def by_class(method: Method, classes: Classes) -> Callable[..., Selection]:
    """Return the label-aware form of a method: it runs inside every class.

    The classes' costs are parts of the whole's, in the same units. The bound that is
    returned is valid for all subsets of size n, whatever their classes; it is computed
    where the method computes one, with the method's settings in `bound`. The classes'
    traces cannot be joined to one of the whole, so the trace has one step.

    Args:
        method: The method to run.
        classes: The classes of both sets; where there is one, nothing changes.

    Returns:
        `choose(problem, budget, *, key)`.

    >>> from goracs_jax.cost import make_cost
    >>> from goracs_jax.selection.classes import make_classes
    >>> from goracs_jax.selection.method import METHODS
    >>> x, ab = np.arange(4.0)[:, None], np.array(list("aaab"))
    >>> choose = by_class(METHODS["greedy"], make_classes(ab, ab[[0, 3, 3, 3]], (4, 4)))
    >>> choose(Problem(make_cost(x, x)), 2, key=jax.random.key(0)).indices.tolist()
    [0, 3]
    """
    if len(classes.names) == 1:
        return method.choose

    def choose(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
        started = time.perf_counter()
        budgets = class_budgets(classes, budget)
        keys = jax.random.split(key, len(budgets))
        rows, parts, left = [], [], budget
        for c in np.flatnonzero(budgets).tolist():
            mine = np.flatnonzero(classes.train == c)
            part = problem._replace(
                cost=_of_class(problem.cost, classes, c),
                grad_norms=_some(problem.grad_norms, mine),
                prediction_errors=_some(problem.prediction_errors, mine),
                rewards=_some(problem.rewards, mine),
                # A sweep remembers picks and matrix of the whole, not of a class.
                start=greedy,
                materialize=materialize,
                limit=problem.limit.share(float(budgets[c] / left)),
            )
            left -= budgets[c]
            parts.append(method.choose(part, int(budgets[c]), key=keys[c]))
            rows.append(mine[parts[-1].indices])
        indices = np.sort(np.concatenate(rows)).astype(np.int64)
        chosen = time.perf_counter() - started
        value = objective(problem.cost, indices)
        trace = (Step(value, chosen, 0),)
        bound = None
        if any(part.lower_bound is not None for part in parts):
            settings = getattr(method, "bound", None) or LowerBound()
            bound = lower_bound(problem.cost, indices, settings, problem.limit)
        converged = all(part.converged for part in parts)
        stopped = any(part.stopped for part in parts)
        return Selection(indices, value, bound, trace, converged, stopped)

    return choose


def class_table(
    cost: Cost, classes: Classes, indices: Int[np.ndarray, " budget"]
) -> list[ClassRow]:
    """Return, for every class, how much of it is chosen and the exact POO within it.

    Args:
        cost: C of the whole.
        classes: The classes of both sets.
        indices: The subset, shape [n].

    >>> from goracs_jax.cost import make_cost
    >>> from goracs_jax.selection.classes import make_classes
    >>> x, ab = np.array([[0.0], [1.0], [2.0]]), np.array(list("aab"))
    >>> classes = make_classes(ab, ab, (3, 3))
    >>> [tuple(row) for row in class_table(make_cost(x, x), classes, np.array([0]))]
    [('a', 2, 2, 1, 0.25), ('b', 1, 1, 0, nan)]
    """
    rows = []
    for c, (name, train, valid) in enumerate(
        zip(classes.names, *classes.counts, strict=True)
    ):
        chosen = np.flatnonzero(np.isin(np.flatnonzero(classes.train == c), indices))
        value = float("nan")
        if len(chosen) and valid:
            value = objective(_of_class(cost, classes, c), chosen)
        rows.append(ClassRow(name, int(train), int(valid), len(chosen), value))
    return rows


def _of_class(cost: Cost, classes: Classes, c: int) -> Cost:
    """Return the rows and columns of C that belong to class c."""
    mine = np.flatnonzero(classes.train == c)
    theirs = np.flatnonzero(classes.valid == c)
    return some_rows(to_points(cost, jnp.asarray(cost.valid)[theirs]), mine)


def _some(scores: AnyArray | None, rows: Int[np.ndarray, " rows"]) -> AnyArray | None:
    return None if scores is None else np.asarray(scores)[rows]
