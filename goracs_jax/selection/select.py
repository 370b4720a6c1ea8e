"""The front door: arrays in, the n rows to fine-tune on out."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from goracs_jax.cost import Cost, check_row_scores, make_cost, materialize
from goracs_jax.errors import InputError
from goracs_jax.selection.baselines.coverage import k_center, k_means
from goracs_jax.selection.baselines.random import greedy_only, random
from goracs_jax.selection.baselines.scores import (
    gradient_norm,
    herding,
    nearest,
    prediction_error,
    stratified_random,
)
from goracs_jax.selection.bound import lower_bound
from goracs_jax.selection.by_class import by_class
from goracs_jax.selection.classes import Labels, given_labels
from goracs_jax.selection.itra import itra
from goracs_jax.selection.problem import (
    Problem,
    Selection,
    Selector,
    Step,
    check_budget,
    check_memory,
    objective,
)
from goracs_jax.selection.search.annealing import anneal
from goracs_jax.selection.search.group_exchange import group_exchange
from goracs_jax.shapes import AnyArray
from goracs_jax.transport import exact, find_solver


def three_stages(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Greedy start, annealed pairs of slots, and group exchange.

    The trace never rises, and the subset returned is never worse, by exact transport,
    than the greedy one. It ends when group exchange finds nothing better.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> problem = Problem(make_cost(x, x))
    >>> three_stages(problem, 2, key=jax.random.key(0)).indices.tolist()
    [1, 4]
    """
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    cost = materialize(problem.cost)
    problem = problem._replace(cost=cost)
    start = np.asarray(problem.start(cost, budget))
    rows, annealed = anneal(problem, start, key=key, started=started)
    rows, descent, converged = group_exchange(problem, rows, started=started)
    trace = (*annealed, *descent[1:])
    value = trace[-1].objective
    if problem.solver is not exact:
        # Entropic values are upper bounds and may fall where the exact one rises: the
        # better end is taken, and the trace ends with its exact value.
        ends = [
            (objective(cost, rows), rows, trace),
            (objective(cost, start), start, ()),
        ]
        value, rows, trace = min(ends, key=lambda end: end[0])
        trace = (*trace, Step(value, time.perf_counter() - started, 0))
    bound, _ = lower_bound(cost, rows)
    return Selection(np.sort(rows).astype(np.int64), value, bound, trace, converged)


SELECTORS: dict[str, Selector] = {
    "goracs": three_stages,
    "greedy": greedy_only,
    "itra": itra,
    "random": random,
    "stratified": stratified_random,
    "k-center": k_center,
    "k-means": k_means,
    "herding": herding,
    "nearest": nearest,
    "grad-norm": gradient_norm,
    "error": prediction_error,
}

#: Methods that read C again and again, and so `materialize` it.
HOLDERS = (three_stages, greedy_only, itra)


def goracs(
    train_embeddings: AnyArray,
    valid_embeddings: AnyArray,
    grad_norms: AnyArray | None = None,
    *,
    budget: int,
    lambda_: float = 0.1,
    key: jax.Array,
    method: str = "goracs",
    solver: str = "auto",
    errors: AnyArray | None = None,
    train_labels: AnyArray | None = None,
    valid_labels: AnyArray | None = None,
) -> Selection:
    r"""Choose the n training examples to fine-tune on: the subset with the least POO.

    POO(S) = OT_C(U_S, U_V),  C_ij = ||x_i - y_j||_2 / max(D) - lambda g_i / max(g)
    (GORACS, Mei et al., KDD 2025).

    Args:
        train_embeddings: x_i, shape [N, dim].
        valid_embeddings: y_j, shape [M, dim].
        grad_norms: g_i, shape [N]; needed where lambda_ > 0 and by "grad-norm".
        budget: n, in [1, N].
        lambda_: Weight of the gradient term, in units of the largest distance.
        key: For methods that draw random numbers.
        method: One of `SELECTORS`.
        solver: Transport inside the search, "exact", "sinkhorn" or "auto", exact on
            CPUs and unless the problem is very large; the objective that is returned
            is exact either way.
        errors: Error of the model's prediction for each training example, shape [N];
            read by the method "error" alone.
        train_labels: The class of every training row, integers or strings, shape [N].
            With labels the method runs inside every class, with a budget in proportion
            to the class's rows in validation (Algorithm 2); what a class cannot have
            of its share is said in a warning.
        valid_labels: The class of every validation row, likewise, shape [M].

    Returns:
        The selection: indices, objective, lower bound, trace, converged.

    Raises:
        InputError: Shapes that do not fit, values that are not finite, a budget out of
            range, a transport that does not fit into memory, an unknown method or
            solver, no scores for a method that ranks by them, or
            labels that do not fit.

    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> selection = goracs(x, x, budget=2, lambda_=0.0, key=jax.random.key(0))
    >>> selection.indices.tolist(), round(selection.objective, 4)
    ([1, 4], 0.1333)
    """
    cost = make_cost(train_embeddings, valid_embeddings, grad_norms, lambda_)
    labels = given_labels(train_labels, valid_labels, cost.shape, [budget])
    return select(
        cost,
        budget,
        key=key,
        method=method,
        solver=solver,
        grad_norms=grad_norms,
        errors=errors,
        labels=labels,
    )


def select(
    cost: Cost,
    budget: int,
    *,
    key: jax.Array,
    method: str = "goracs",
    solver: str = "exact",
    grad_norms: AnyArray | None = None,
    errors: AnyArray | None = None,
    labels: Labels | None = None,
) -> Selection:
    """`goracs` for a cost that is made already.

    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> select(make_cost(x, x), 2, key=jax.random.key(0), method="best")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: method must be one of goracs, greedy, itra, ...
    """
    selector = find_selector(method, labels)
    if not all(bool(jnp.isfinite(part).all()) for part in jax.tree.leaves(cost)):
        raise InputError("the cost holds NaN or infinity: make it with `make_cost`.")
    n_train, n_valid = cost.shape
    check_budget(n_train, budget)
    check_memory(budget, n_valid)
    if errors is not None:
        check_row_scores(errors, n_train, "prediction errors")
    transport = find_solver(solver, budget, n_valid)
    problem = Problem(cost, transport, grad_norms, errors)
    return selector(problem, budget, key=key)


def poo(
    train_embeddings: AnyArray,
    valid_embeddings: AnyArray,
    grad_norms: AnyArray | None,
    indices: AnyArray,
    *,
    lambda_: float = 0.1,
    solver: str = "exact",
) -> float:
    """POO(S) of a subset of the training rows, in the units of C (see `goracs`).

    Args:
        train_embeddings: x_i, shape [N, dim].
        valid_embeddings: y_j, shape [M, dim].
        grad_norms: g_i, shape [N]; may be None where lambda_ is 0.
        indices: S, distinct row numbers in [0, N), shape [n].
        lambda_: Weight of the gradient term.
        solver: "exact" or "sinkhorn".

    Returns:
        The objective.

    Raises:
        InputError: As `goracs`; also indices that repeat or are out of range.

    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> poo(x, x, np.array([1.0, 1.0, 2.0]), np.array([0, 2]), lambda_=0.5)
    -0.2083
    """
    cost = make_cost(train_embeddings, valid_embeddings, grad_norms, lambda_)
    rows = np.asarray(indices)
    n_train, _ = cost.shape
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(
            f"indices must be a vector of integers, got shape {list(rows.shape)} of "
            f"{rows.dtype}."
        )
    check_budget(n_train, len(rows))
    if rows.min() < 0 or rows.max() >= n_train or len(np.unique(rows)) < len(rows):
        raise InputError(f"indices must be distinct and in [0, {n_train - 1}].")
    return objective(cost, rows, find_solver(solver, len(rows), cost.shape[1]))


def find_selector(method: str, labels: Labels | None = None) -> Selector:
    """The selector of a name, label-aware where there are labels.

    >>> find_selector("goracs") is three_stages
    True
    """
    if method not in SELECTORS:
        raise InputError(
            f"method must be one of {', '.join(SELECTORS)}, got {method!r}."
        )
    return by_class(SELECTORS[method], labels) if labels else SELECTORS[method]
