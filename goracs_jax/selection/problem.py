"""The problem that a method gets, its selection, the objective, and size checks."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from goracs_jax.cost import (
    Cost,
    column_mass,
    cost_rows,
    exact_cost,
    materialize,
    without_reward,
)
from goracs_jax.errors import InputError, NumericalError
from goracs_jax.selection.limit import UNLIMITED, Limit
from goracs_jax.selection.search.greedy import greedy
from goracs_jax.selection.wishes.record import Wishes
from goracs_jax.shapes import AnyArray, GradNorms, Rows
from goracs_jax.transport import Solver, Transport, exact, sinkhorn


class Problem(NamedTuple):
    """Choose rows of `cost` so that the transport to all its columns is cheap.

    `grad_norms` (as given, whatever lambda is), `prediction_errors` and `rewards` serve
    the methods that rank by them. `start` gives the greedy picks of a cost and
    `materialize` the cost with its matrix in memory; in a sweep both remember what they
    made, so that several selections share it. Searches that take long end at `limit`
    with the best subset so far. `wishes` is what the subset must meet.
    """

    cost: Cost
    solver: Solver = exact
    grad_norms: GradNorms | None = None
    prediction_errors: Float[AnyArray, " train"] | None = None
    rewards: Float[AnyArray, " train"] | None = None
    start: Callable[[Cost, int], Rows] = greedy
    materialize: Callable[[Cost], Cost] = materialize
    limit: Limit = UNLIMITED
    wishes: Wishes | None = None


class Step(NamedTuple):
    """One entry of a trace: POO of the subset reached, and when it was reached."""

    objective: float
    seconds: float
    replaced: int  # rows that left the subset in this step


class Refined(NamedTuple):
    """The result of a stage of the search, `refine(problem, rows, *, key)`.

    `rows` is the subset by slot, shape [n], in no order. `trace` starts with the subset
    that the stage was given. `converged` says that the stage ended by itself, at none
    of its limits, and `stopped` that it ended at that of the problem.
    """

    rows: Int[np.ndarray, " budget"]
    trace: tuple[Step, ...]
    converged: bool
    stopped: bool = False


class Selection(NamedTuple):
    """A subset S of the training rows and what is known about it.

    `indices` are sorted and unique. `objective` is POO(S) by exact transport, in the
    units of C. No subset of this size that meets the wishes has a POO below
    `lower_bound` (None where no bound was computed). Where some rows are trained on
    already, both are of the union with them. `converged` says that the method ended by
    itself, and `stopped` that a time limit or a signal ended it.
    """

    indices: Int[np.ndarray, " budget"]
    objective: float
    lower_bound: float | None
    trace: tuple[Step, ...]
    converged: bool
    stopped: bool = False


def objective(cost: Cost, indices: Rows, solver: Solver = exact) -> float:
    """Compute POO(S) = OT_C(U_S, U_V), the proxy objective of GORACS (KDD 2025).

    Because every selected row carries mass 1 / n, the transport cost of D and the
    reward for large gradients are one transport problem with cost C.

    Args:
        cost: C as factors.
        indices: The subset S, shape [n].
        solver: `transport.exact` or `transport.sinkhorn`.

    Returns:
        POO in the units of C.

    Raises:
        NumericalError: The solver did not converge.

    >>> from goracs_jax.cost import make_cost
    >>> eye = np.eye(2, dtype=np.float32)
    >>> objective(make_cost(eye, eye), np.array([0, 1]))
    0.0
    """
    _, solved = solve(cost, indices, solver)
    return solved.value


def solve(
    cost: Cost,
    indices: Rows,
    solver: Solver,
    g: Float[np.ndarray, " valid"] | None = None,
) -> tuple[Float[np.ndarray, "budget valid"], Transport]:
    """Return the rows of C of a subset and the transport from it to validation.

    Args:
        cost: C as factors.
        indices: The subset, shape [n].
        solver: `transport.exact` or `transport.sinkhorn`.
        g: Column potentials of a similar subset, to start from.

    Returns:
        C_S in float64, shape [n, M], and the transport. For Sinkhorn C_S is computed
        where the cost lies, in float32.

    Raises:
        NumericalError: The solver did not converge.

    >>> from goracs_jax.cost import make_cost
    >>> eye = np.eye(2, dtype=np.float32)
    >>> solve(make_cost(eye, eye), np.array([0, 1]), exact)[1].converged
    True
    """
    on_host = solver is not sinkhorn
    rows_cost = (exact_cost if on_host else cost_rows)(cost, np.asarray(indices))
    more: dict[str, Any] = {} if g is None else {"g": g}
    if cost.mass is not None:
        more["b"] = column_mass(cost)
    solved = solver(rows_cost, **more)
    if not solved.converged:
        raise NumericalError(
            f"Sinkhorn stopped with a marginal error of {solved.marginal_error:.1e}: "
            "use the exact solver."
        )
    return np.asarray(rows_cost, np.float64), solved


def check_budget(n_train: int, budget: object) -> None:
    """Refuse a budget that no subset of N rows can have.

    >>> check_budget(2, 3)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: budget must be in [1, 2], got 3: ...
    """
    if not isinstance(budget, int | np.integer):
        raise InputError(f"budget must be an integer, got {budget!r}.")
    if not 1 <= budget <= n_train:
        raise InputError(
            f"budget must be in [1, {n_train}], got {budget}: it is the number of "
            f"training examples to choose out of {n_train}."
        )


def check_memory(budget: int, n_valid: int) -> None:
    """Refuse a transport that this machine cannot hold, before hours of work.

    >>> check_memory(10**6, 10**6)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: a transport of 1000000 x 1000000 takes 22352 GiB ...
    """
    needed = transport_bytes(budget, n_valid)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise InputError(
            f"a transport of {budget} x {n_valid} takes {needed / 2**30:.0f} GiB of "
            f"memory, this machine has {memory / 2**30:.0f} GiB: lower the budget or "
            "give fewer validation examples."
        )


def transport_bytes(budget: int, n_valid: int) -> int:
    """Return the bytes of host memory that the exact transport of a subset takes.

    >>> transport_bytes(2, 3)
    144
    """
    # Cost, plan and the solver's copy of the cost, in float64.
    return 3 * 8 * budget * n_valid


def mean_distance(cost: Cost, indices: Rows) -> Float[np.ndarray, ""]:
    """Compute the mean distance of the validation points to their nearest selected row.

    It is in the units of the embeddings, not divided by max(D).

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [4.0]], np.float32)
    >>> mean_distance(make_cost(x, x), np.array([0])).item()
    2.0
    """
    nearest = exact_cost(without_reward(cost), indices).min(0)
    mean = np.average(nearest, weights=column_mass(cost))
    return np.asarray(mean * float(cost.distance_scale))
