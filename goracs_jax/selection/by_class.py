r"""Label-aware selection for K classes (GORACS, KDD 2025, Algorithm 2).

Both sets are split by class. Class c gets a budget n_c in proportion to m_c, its rows
among the M of validation; a selector runs inside every class; the union is the coreset.
What is reported is the exact POO of the union against the whole validation set. Where
n_c = n m_c / M exactly, the plans of the classes side by side are a plan of the whole:

    POO(S) <= sum_c (m_c / M) POO_c(S_c).

With rounded budgets not even that is certain, and the classes' own lower bounds say
nothing of the whole, since mass may cross between classes.
"""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from goracs_jax.cost import Cost, to_points, train_rows
from goracs_jax.mesh import shard_rows
from goracs_jax.selection.bound import lower_bound
from goracs_jax.selection.classes import Labels, class_budgets
from goracs_jax.selection.problem import (
    Problem,
    Selection,
    Selector,
    Step,
    objective,
)
from goracs_jax.selection.search.greedy import greedy
from goracs_jax.shapes import AnyArray


class ClassRow(NamedTuple):
    """One class in the table of a label-aware selection."""

    label: int | str
    train: int  # rows in training
    valid: int  # rows in validation
    budget: int  # rows chosen
    objective: float  # exact POO of those within the class; NaN where there are none


def by_class(selector: Selector, labels: Labels) -> Selector:
    """The label-aware form of a selector: it runs inside every class.

    The classes' costs are parts of the whole's, in the same units. The bound that is
    returned holds for all subsets of size n, whatever their classes; it is computed
    where the selector computes one. Nothing is known of the way between the classes'
    ends, so the trace is one step.

    Args:
        selector: What to run.
        labels: The classes of both sets; where there is one, the selector is returned.

    Returns:
        A selector.

    >>> from goracs_jax.cost import make_cost
    >>> from goracs_jax.selection.baselines.random import greedy_only
    >>> from goracs_jax.selection.classes import make_labels
    >>> x, ab = np.arange(4.0)[:, None], np.array(list("aaab"))
    >>> problem = Problem(make_cost(x, x))
    >>> selector = by_class(greedy_only, make_labels(ab, ab[[0, 3, 3, 3]], (4, 4)))
    >>> selector(problem, 2, key=jax.random.key(0)).indices.tolist()
    [0, 3]
    """
    if len(labels.classes) == 1:
        return selector

    def select(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
        started = time.perf_counter()
        budgets = class_budgets(labels, budget)
        keys = jax.random.split(key, len(budgets))
        rows, parts = [], []
        for c in np.flatnonzero(budgets).tolist():
            mine = np.flatnonzero(labels.train == c)
            part = problem._replace(
                cost=_of_class(problem.cost, labels, c),
                grad_norms=_some(problem.grad_norms, mine),
                errors=_some(problem.errors, mine),
                start=greedy,  # picks remembered for the whole are no picks of a part
            )
            parts.append(selector(part, int(budgets[c]), key=keys[c]))
            rows.append(mine[parts[-1].indices])
        indices = np.sort(np.concatenate(rows)).astype(np.int64)
        chosen = time.perf_counter() - started
        value = objective(problem.cost, indices)
        trace = (Step(value, chosen, 0),)
        bounded = any(np.isfinite(part.lower_bound) for part in parts)
        bound = lower_bound(problem.cost, indices)[0] if bounded else -np.inf
        converged = all(part.converged for part in parts)
        return Selection(indices, value, bound, trace, converged)

    return select


def class_table(
    cost: Cost, labels: Labels, indices: Int[np.ndarray, " budget"]
) -> list[ClassRow]:
    """What a subset holds of every class, and its exact POO within the class.

    Args:
        cost: C of the whole.
        labels: The classes of both sets.
        indices: The subset, shape [n].

    >>> from goracs_jax.cost import make_cost
    >>> from goracs_jax.selection.classes import make_labels
    >>> x, ab = np.array([[0.0], [1.0], [2.0]]), np.array(list("aab"))
    >>> labels = make_labels(ab, ab, (3, 3))
    >>> [tuple(row) for row in class_table(make_cost(x, x), labels, np.array([0]))]
    [('a', 2, 2, 1, 0.25), ('b', 1, 1, 0, nan)]
    """
    rows = []
    for c, (label, train, valid) in enumerate(
        zip(labels.classes, *labels.counts, strict=True)
    ):
        chosen = np.flatnonzero(np.isin(np.flatnonzero(labels.train == c), indices))
        value = float("nan")
        if len(chosen) and valid:
            value = objective(_of_class(cost, labels, c), chosen)
        rows.append(ClassRow(label, int(train), int(valid), len(chosen), value))
    return rows


def _of_class(cost: Cost, labels: Labels, c: int) -> Cost:
    """The rows and columns of C that belong to class c."""
    mine = np.flatnonzero(labels.train == c)
    theirs = np.flatnonzero(labels.valid == c)
    return to_points(cost, jnp.asarray(cost.valid)[theirs])._replace(
        train=shard_rows(np.asarray(train_rows(cost, mine)), cost.tiling.mesh),
        reward=jnp.asarray(cost.reward)[mine],
    )


def _some(scores: AnyArray | None, rows: Int[np.ndarray, " rows"]) -> AnyArray | None:
    return None if scores is None else np.asarray(scores)[rows]
