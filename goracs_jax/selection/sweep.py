"""Several budgets and lambdas at once: what the runs have in common is done once."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import jax
import numpy as np

from goracs_jax.cost import (
    Cost,
    check_lambda,
    check_row_scores,
    make_cost,
    materialize,
    with_lambda,
)
from goracs_jax.errors import InputError
from goracs_jax.selection.classes import Labels, given_labels
from goracs_jax.selection.problem import Problem, Selection, check_budget, check_memory
from goracs_jax.selection.search.greedy import greedy
from goracs_jax.selection.select import HOLDERS, find_selector
from goracs_jax.shapes import AnyArray, Rows
from goracs_jax.transport import find_solver


def sweep(
    train_embeddings: AnyArray,
    valid_embeddings: AnyArray,
    grad_norms: AnyArray | None = None,
    *,
    budgets: Sequence[int],
    lambdas: Sequence[float],
    key: jax.Array,
    method: str = "goracs",
    solver: str = "auto",
    errors: AnyArray | None = None,
    train_labels: AnyArray | None = None,
    valid_labels: AnyArray | None = None,
) -> dict[tuple[int, float], Selection]:
    """`goracs` for every budget with every lambda, each the same as on its own.

    Args:
        train_embeddings: x_i, shape [N, dim].
        valid_embeddings: y_j, shape [M, dim].
        grad_norms: g_i, shape [N]; needed where a lambda is above 0.
        budgets: Values of n.
        lambdas: Weights of the gradient term.
        key: As for `goracs`; every selection starts from it.
        method: One of `SELECTORS`.
        solver: Transport inside the search.
        errors: As for `goracs`.
        train_labels: As for `goracs`.
        valid_labels: As for `goracs`.

    Returns:
        The selections by (budget, lambda).

    Raises:
        InputError: As `goracs`, before the first selection; or an empty list.

    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> found = sweep(x, x, budgets=[1, 2], lambdas=[0.0], key=jax.random.key(0))
    >>> found[2, 0.0].indices.tolist()
    [1, 4]
    """
    for lambda_ in lambdas:
        check_lambda(lambda_)
    cells = ordered(budgets, lambdas)
    cost = make_cost(train_embeddings, valid_embeddings, grad_norms, max(lambdas))
    for budget in budgets:
        check_budget(cost.shape[0], budget)
    check_memory(max(budgets), cost.shape[1])
    if errors is not None:
        check_row_scores(errors, cost.shape[0], "prediction errors")
    labels = given_labels(train_labels, valid_labels, cost.shape, budgets)
    choose = chooser(
        cost,
        grad_norms,
        key=key,
        method=method,
        solver=solver,
        errors=errors,
        labels=labels,
    )
    return {cell: choose(*cell) for cell in cells}


def ordered(
    budgets: Sequence[int], lambdas: Sequence[float]
) -> list[tuple[int, float]]:
    """Cells (budget, lambda) in the order that shares most: the largest budget first.

    >>> ordered([1, 2], [0.0, 0.5])
    [(2, 0.0), (1, 0.0), (2, 0.5), (1, 0.5)]
    """
    if not len(budgets) or not len(lambdas):
        raise InputError("give at least one budget and one lambda.")
    return [
        (budget, lambda_)
        for lambda_ in sorted(set(lambdas))
        for budget in sorted(set(budgets), reverse=True)
    ]


def chooser(
    cost: Cost,
    grad_norms: AnyArray | None,
    *,
    key: jax.Array,
    method: str,
    solver: str,
    errors: AnyArray | None = None,
    labels: Labels | None = None,
) -> Callable[[int, float], Selection]:
    """A function of budget and lambda that selects: the cells of a sweep, one by one.

    The distances and their maximum serve all cells. Greedy picks are nested, so those
    of the largest budget so far serve the smaller ones of the same lambda (and count in
    its seconds alone); inside classes, whose budgets need not be nested, they are
    picked anew.

    Args:
        cost: C as factors, for any lambda.
        grad_norms: As for `goracs`.
        key: As for `goracs`; every cell starts from it.
        method: One of `SELECTORS`.
        solver: As for `goracs`.
        errors: As for `goracs`.
        labels: The classes, where the selection is label-aware.

    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> names = {"method": "goracs", "solver": "exact"}
    >>> choose = chooser(make_cost(x, x), None, key=jax.random.key(0), **names)
    >>> choose(2, 0.0).indices.tolist()
    [1, 4]
    """
    selector = find_selector(method, labels)
    # Those that read C again and again would each keep one of their own.
    keeps = cache(lambda: materialize(cost) if selector in HOLDERS else cost)

    @lru_cache(maxsize=1)  # cells of one lambda follow one another
    def problem(lambda_: float) -> Problem:
        weighed = with_lambda(keeps(), grad_norms, lambda_)
        start = nested_greedy()
        return Problem(weighed, grad_norms=grad_norms, errors=errors, start=start)

    def choose(budget: int, lambda_: float) -> Selection:
        transport = find_solver(solver, budget, cost.shape[1])
        return selector(problem(lambda_)._replace(solver=transport), budget, key=key)

    return choose


def nested_greedy() -> Callable[[Cost, int], Rows]:
    """`greedy` of one cost that remembers: fewer picks are a prefix of more.

    >>> x = np.array([[0.0], [5.0], [9.0]], np.float32)
    >>> picks = nested_greedy()
    >>> picks(make_cost(x, x), 2).tolist(), picks(make_cost(x, x), 1).tolist()
    ([1, 0], [1])
    """
    known = np.empty(0, np.int64)

    def picks(cost: Cost, budget: int) -> Rows:
        nonlocal known
        if len(known) < budget:
            known = np.asarray(greedy(cost, budget))
        return known[:budget]

    return picks
