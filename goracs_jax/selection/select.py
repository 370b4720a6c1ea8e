"""The front door: choose the n rows to fine-tune on, from arrays or from a cost."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from goracs_jax.cost import Cost, make_cost
from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_array, as_arrays
from goracs_jax.selection.auto_budget import auto_budget
from goracs_jax.selection.checked import check_heeds, checked_choice
from goracs_jax.selection.classes import Classes, given_classes
from goracs_jax.selection.limit import Limit
from goracs_jax.selection.method import (
    Method,
    find_method,
    with_search,
)
from goracs_jax.selection.problem import (
    Problem,
    Selection,
    check_budget,
    objective,
)
from goracs_jax.selection.wishes import Wishes, make_wishes, total
from goracs_jax.shapes import AnyArray, GivenArray
from goracs_jax.transport import find_solver


def goracs(
    train_embeddings: GivenArray,
    valid_embeddings: GivenArray,
    grad_norms: GivenArray | None = None,
    *,
    budget: int | Literal["auto"],
    lambda_: float = 0.1,
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
) -> Selection:
    r"""Choose the n training examples to fine-tune on: the subset with the least POO.

    POO(S) = OT_C(U_S, U_V),  C_ij = ||x_i - y_j||_2 / max(D) - lambda g_i / max(g)
    (GORACS, Mei et al., KDD 2025).

    Args:
        train_embeddings: x_i, shape [N, dim]: floats, or the int8 or uint8 of quantised
            embeddings. Here and below, an array of NumPy or JAX, a tensor of PyTorch, a
            frame of polars or pandas, a dataset of `datasets` or lists.
        valid_embeddings: y_j, shape [M, dim].
        grad_norms: g_i, shape [N]; needed where lambda_ > 0, and by methods that rank
            by them, such as "grad-norm".
        budget: n, in [1, N]; or "auto", the n from which on a held-out half of
            validation gains nothing (`auto_budget` gives its curve).
        lambda_: Weight of the gradient term, in units of the largest distance.
        key: For methods that draw random numbers.
        method: The name of one of `METHODS`, or a method itself, such as
            `Goracs(annealing=SimulatedAnnealing(epochs=5))`.
        solver: Transport inside the search: "exact", "sinkhorn", or "auto", which is
            exact on CPUs, and elsewhere for all but very large problems. The objective
            that is returned is exact with each.
        errors: The model's prediction error for each training example, shape [N], for
            methods that rank by them, such as "error".
        rewards: r_i of any sign, shape [N], in place of the gradient norms: the term is
            then lambda r_i / max|r|. Large rewards attract. Methods that rank by
            rewards, such as "loss-drop", need them whatever lambda is.
        scale: Divide D by its largest entry, or by its median ("median"), so that one
            distant row does not shrink all other distances.
        train_labels: The class of every training row, integers or strings, shape [N].
            With labels the method runs inside every class, with a budget in proportion
            to the class's rows in validation (Algorithm 2). A warning names the classes
            that cannot have their share.
        valid_labels: The class of every validation row, likewise, shape [M].
        valid_weights: How much each validation row counts, numbers >= 0, shape [M]: its
            mass in the transport is its share of their sum.
        include: Row numbers that must be chosen; they count in n.
        exclude: Row numbers that must not be chosen.
        row_costs: c_i >= 0 of every training row, such as its tokens, shape [N].
        cost_limit: The most that the n rows may cost together.
        groups: The group of every training row, such as its source, topic or user,
            integers or strings, shape [N].
        group_min: The least number of rows that are chosen of a group, by group.
        group_max: The most rows that are chosen of a group, by group.
        apart: No two chosen rows are closer than this, in the units of the embeddings:
            of near duplicates one is chosen at most.
        trained: Row numbers that are trained on already. The next n are chosen beside
            them: the objective and its bound are those of both together, and the limits
            of costs and groups those of the n alone.
        effort: Multiplier on the work of the search, in [0.1, 10]. More effort finds a
            lower POO as a rule; on one seed it may end a little higher.
        time_limit: Seconds, counted from the beginning of the search, after which the
            best subset so far is returned. The greedy start is finished in any case,
            and so is a program that runs.
        bound: How much work the lower bound gets: "none", "quick" or "full"; left out,
            what the method is set to, which is full. Without one the search has no
            prices to start from, and takes longer to find as good a subset.
        mesh: Devices in a row (`mesh.row_mesh`), over which the training rows go; all
            devices when left out.

    Returns:
        The selection: indices, objective, lower bound, trace, converged, stopped. With
        wishes (from `include` on) the bound is one of all subsets that meet them.

    Raises:
        InputError: Shapes that do not fit, values that are not finite, a budget out of
            range, a transport that does not fit into memory, an unknown method or
            solver, no scores for a method that needs them, labels that do not fit,
            wishes that no subset meets, a method that cannot heed them, or an effort,
            time limit or bound that the method does not have.
        NumericalError: Sinkhorn did not converge.

    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> selection = goracs(x, x, budget=2, lambda_=0.0, key=jax.random.key(0))
    >>> selection.indices.tolist(), round(selection.objective, 4)
    ([1, 4], 0.1333)
    >>> goracs(x, x, budget=2, lambda_=0.0, key=jax.random.key(0), include=[0]).indices
    array([0, 4])
    """
    grad_norms, errors, rewards = as_arrays(
        gradient_norms=grad_norms, prediction_errors=errors, rewards=rewards
    )
    embeddings = train_embeddings, valid_embeddings
    cost = make_cost(
        *embeddings,
        grad_norms,
        lambda_,
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
    method = with_search(find_method(method), effort, bound)
    if budget == "auto":
        if train_labels is not None or valid_labels is not None:
            raise InputError("budget auto is not for classes: give a number.")
        check_heeds(method, wishes is not None, cost.mass is not None, False)
        budget = auto_budget(cost, key=key, wishes=wishes).budget
    return select_from_cost(
        cost,
        budget,
        key=key,
        method=method,
        solver=solver,
        grad_norms=grad_norms,
        prediction_errors=errors,
        rewards=rewards,
        classes=given_classes(train_labels, valid_labels, cost.shape, [budget]),
        time_limit=time_limit,
        wishes=wishes,
    )


def select_from_cost(
    cost: Cost,
    budget: int,
    *,
    key: jax.Array,
    method: str | Method = "goracs",
    solver: str = "exact",
    grad_norms: GivenArray | None = None,
    prediction_errors: AnyArray | None = None,
    rewards: GivenArray | None = None,
    classes: Classes | None = None,
    time_limit: float | None = None,
    wishes: Wishes | None = None,
) -> Selection:
    """Choose as `goracs` does, from a cost that is made already.

    Args:
        cost: C as factors, for the lambda that counts.
        budget: n, in [1, N].
        key: As for `goracs`.
        method: As for `goracs`.
        solver: As for `goracs`.
        grad_norms: g_i, shape [N], for methods that rank by them.
        prediction_errors: Shape [N], for methods that rank by them.
        rewards: Of any sign, shape [N], for methods that rank by them.
        classes: The classes of both sets, where the selection is to be label-aware.
        time_limit: As for `goracs`.
        wishes: What the subset must meet, from `make_wishes`.

    Returns:
        As `goracs`.

    Raises:
        InputError: As `goracs`; or the cost is not finite.
        NumericalError: Sinkhorn did not converge.

    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> cost, key = make_cost(x, x), jax.random.key(0)
    >>> select_from_cost(cost, 2, key=key).indices.tolist()
    [1, 4]
    >>> select_from_cost(cost, 2, key=key, method="best")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: method must be one of goracs, greedy, itra, ...
    """
    problem = Problem(
        cost,
        grad_norms=grad_norms,
        prediction_errors=prediction_errors,
        rewards=rewards,
        wishes=wishes,
    )
    choose = checked_choice(problem, [budget], method, classes)
    transport = find_solver(solver, total(wishes, budget), cost.shape[1])
    problem = problem._replace(solver=transport, limit=Limit.after(time_limit))
    return choose(problem, budget, key=key)


def poo(
    train_embeddings: GivenArray,
    valid_embeddings: GivenArray,
    grad_norms: GivenArray | None,
    indices: GivenArray,
    *,
    lambda_: float = 0.1,
    rewards: GivenArray | None = None,
    scale: str = "max",
    valid_weights: GivenArray | None = None,
    solver: str = "exact",
    mesh: Mesh | None = None,
) -> float:
    """Compute POO(S) of a subset of the training rows, in the units of C.

    See `goracs` for the formula.

    Args:
        train_embeddings: x_i, shape [N, dim].
        valid_embeddings: y_j, shape [M, dim].
        grad_norms: g_i, shape [N]; may be None where lambda_ is 0.
        indices: S, distinct row numbers in [0, N), shape [n].
        lambda_: Weight of the gradient term.
        rewards: As for `goracs`.
        scale: As for `goracs`.
        valid_weights: As for `goracs`.
        solver: "exact", "sinkhorn" or "auto" (see `goracs`).
        mesh: As for `goracs`.

    Returns:
        The objective.

    Raises:
        InputError: As `goracs`; also indices that repeat or are out of range.
        NumericalError: Sinkhorn did not converge.

    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> poo(x, x, np.array([1.0, 1.0, 2.0]), np.array([0, 2]), lambda_=0.5)
    -0.2083
    """
    embeddings = train_embeddings, valid_embeddings
    cost = make_cost(
        *embeddings,
        grad_norms,
        lambda_,
        rewards=rewards,
        scale=scale,
        valid_weights=valid_weights,
        mesh=mesh,
    )
    rows = as_array(indices, "indices")
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
