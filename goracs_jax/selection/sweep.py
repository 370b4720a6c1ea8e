"""Several budgets and lambdas at once: the selections share what can be shared."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from goracs_jax.cost import Cost, check_lambda, make_cost, materialize, with_lambda
from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_arrays
from goracs_jax.selection.checked import checked_choice
from goracs_jax.selection.classes import Classes, given_classes
from goracs_jax.selection.limit import Limit
from goracs_jax.selection.method import Method, find_method, with_search
from goracs_jax.selection.problem import Problem, Selection
from goracs_jax.selection.search.greedy import greedy
from goracs_jax.selection.wishes import Wishes, make_wishes, total
from goracs_jax.shapes import AnyArray, GivenArray, Rows
from goracs_jax.transport import find_solver


def sweep(
    train_embeddings: GivenArray,
    valid_embeddings: GivenArray,
    grad_norms: GivenArray | None = None,
    *,
    budgets: Sequence[int],
    lambdas: Sequence[float],
    key: jax.Array,
    method: str | Method = "goracs",
    solver: str = "auto",
    errors: GivenArray | None = None,
    rewards: GivenArray | None = None,
    scale: str = "max",
    train_labels: GivenArray | None = None,
    valid_labels: GivenArray | None = None,
    valid_weights: GivenArray | None = None,
    include: GivenArray | None = None,
    exclude: GivenArray | None = None,
    row_costs: GivenArray | None = None,
    cost_limit: float | int | None = None,
    groups: GivenArray | None = None,
    group_min: Mapping[Any, int] | None = None,
    group_max: Mapping[Any, int] | None = None,
    apart: float | int | None = None,
    trained: GivenArray | None = None,
    effort: float = 1.0,
    time_limit: float | None = None,
    bound: str | None = None,
    mesh: Mesh | None = None,
) -> dict[tuple[int, float], Selection]:
    """Run `goracs` for every budget with every lambda, each as it would run alone.

    Args:
        train_embeddings: x_i, shape [N, dim].
        valid_embeddings: y_j, shape [M, dim].
        grad_norms: g_i, shape [N]; needed where a lambda is above 0.
        budgets: Values of n.
        lambdas: Weights of the gradient term.
        key: As for `goracs`; every selection starts from it.
        method: As for `goracs`.
        solver: As for `goracs`.
        errors: As for `goracs`.
        rewards: As for `goracs`.
        scale: As for `goracs`.
        train_labels: As for `goracs`.
        valid_labels: As for `goracs`.
        valid_weights: As for `goracs`.
        include: As for `goracs`.
        exclude: As for `goracs`.
        row_costs: As for `goracs`.
        cost_limit: As for `goracs`.
        groups: As for `goracs`.
        group_min: As for `goracs`.
        group_max: As for `goracs`.
        apart: As for `goracs`.
        trained: As for `goracs`.
        effort: As for `goracs`.
        time_limit: As for `goracs`, of each selection.
        bound: As for `goracs`.
        mesh: As for `goracs`.

    Returns:
        The selections by (budget, lambda).

    Raises:
        InputError: As `goracs`, before the first selection; or a list is empty.
        NumericalError: Sinkhorn did not converge.

    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> found = sweep(x, x, budgets=[1, 2], lambdas=[0.0], key=jax.random.key(0))
    >>> found[2, 0.0].indices.tolist()
    [1, 4]
    """
    for lambda_ in lambdas:
        check_lambda(lambda_)
    grid = ordered(budgets, lambdas)
    grad_norms, errors, rewards = as_arrays(
        gradient_norms=grad_norms, prediction_errors=errors, rewards=rewards
    )
    embeddings = train_embeddings, valid_embeddings
    largest = max(lambdas)
    cost = make_cost(
        *embeddings,
        grad_norms,
        largest,
        rewards=rewards,
        scale=scale,
        valid_weights=valid_weights,
        mesh=mesh,
    )
    wishes = make_wishes(
        cost,
        include=include,
        exclude=exclude,
        trained=trained,
        groups=groups,
        group_min=group_min,
        group_max=group_max,
        row_costs=row_costs,
        cost_limit=cost_limit,
        apart=apart,
    )
    choose = chooser(
        cost,
        budgets,
        key=key,
        method=with_search(find_method(method), effort, bound),
        solver=solver,
        grad_norms=grad_norms,
        rewards=rewards,
        prediction_errors=errors,
        classes=given_classes(train_labels, valid_labels, cost.shape, budgets),
        limit=partial(Limit.after, time_limit),
        wishes=wishes,
    )
    return {point: choose(*point) for point in grid}


def ordered(
    budgets: Sequence[int], lambdas: Sequence[float]
) -> list[tuple[int, float]]:
    """List pairs (budget, lambda) in the order that shares most work.

    Of each lambda the largest budget comes first.

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
    budgets: Sequence[int],
    *,
    key: jax.Array,
    method: str | Method = "goracs",
    solver: str = "exact",
    grad_norms: GivenArray | None = None,
    rewards: GivenArray | None = None,
    prediction_errors: AnyArray | None = None,
    classes: Classes | None = None,
    limit: Callable[[], Limit] = Limit,
    wishes: Wishes | None = None,
) -> Callable[[int, float], Selection]:
    """Return a function of budget and lambda that selects.

    All its selections share the distances and, where a method materializes C, its
    matrix. Greedy picks are nested, so those of the largest budget so far serve the
    smaller ones of the same lambda (and count in its seconds alone). Inside classes,
    whose budgets need not be nested, and with wishes, they are picked anew.

    Args:
        cost: C as factors, for any lambda.
        budgets: All values of n to come.
        key: Every selection starts from it.
        method: As for `goracs`.
        solver: As for `goracs`.
        grad_norms: As for `goracs`.
        rewards: As for `goracs`.
        prediction_errors: As for `select_from_cost`.
        classes: As for `select_from_cost`.
        limit: Makes the limit of each selection as it begins.
        wishes: As for `select_from_cost`.

    Raises:
        InputError: As `goracs`.

    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> choose = chooser(make_cost(x, x), [2], key=jax.random.key(0))
    >>> choose(2, 0.0).indices.tolist()
    [1, 4]
    """
    shared = Problem(
        cost,
        grad_norms=grad_norms,
        prediction_errors=prediction_errors,
        rewards=rewards,
        materialize=remembered_matrix(),
        wishes=wishes,
    )
    choose = checked_choice(shared, budgets, method, classes)

    @lru_cache(maxsize=1)  # the selections of one lambda follow one another
    def problem(lambda_: float) -> Problem:
        # Methods may rank by norms where rewards are what lambda weighs.
        norms = grad_norms if rewards is None else None
        weighed = with_lambda(cost, norms, lambda_, rewards)
        return shared._replace(cost=weighed, start=nested_greedy())

    def choose_one(budget: int, lambda_: float) -> Selection:
        transport = find_solver(solver, total(wishes, budget), cost.shape[1])
        mine = problem(lambda_)._replace(solver=transport, limit=limit())
        return choose(mine, budget, key=key)

    return choose_one


def nested_greedy() -> Callable[[Cost, int], Rows]:
    """Return `greedy` of one cost that remembers: fewer picks are a prefix of more.

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


def remembered_matrix() -> Callable[[Cost], Cost]:
    """Return `materialize` for costs that differ in lambda alone: one matrix for all.

    >>> x = np.array([[0.0], [5.0]], np.float32)
    >>> materialize = remembered_matrix()
    >>> one, two = (materialize(make_cost(x, x)) for _ in range(2))
    >>> one.matrix is two.matrix
    True
    """
    known: list[Cost] = []

    def materialize_once(cost: Cost) -> Cost:
        if not known:
            known.append(materialize(cost))
        return cost._replace(matrix=known[0].matrix)

    return materialize_once
