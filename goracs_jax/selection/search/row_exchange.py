"""Exchange single rows, each pair by its own transport, where there are few of them."""

import numpy as np
from jaxtyping import Float, Int

from goracs_jax.selection.problem import Problem, solve
from goracs_jax.selection.wishes.record import meets
from goracs_jax.transport import Transport, exact

Found = tuple[Int[np.ndarray, " budget"], Float[np.ndarray, "budget valid"], Transport]


def best_swap(
    problem: Problem,
    rows: Int[np.ndarray, " budget"],
    g: Float[np.ndarray, " valid"],
    most: int,
) -> Found | None:
    """Try every row outside in the place of every row inside, by exact transport.

    Args:
        problem: The cost, the transport solver, and wishes.
        rows: A subset that meets the wishes, shape [n].
        g: Its column potentials, to start from.
        most: The largest number of pairs, n (N - n), that are tried.

    Returns:
        The rows after the best exchange that meets the wishes, whether it is better or
        not, their rows of C and their transport; None where there are too many pairs,
        none that may be exchanged, or another solver than the exact one.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.arange(6, dtype=np.float32)[:, None]
    >>> found = best_swap(Problem(make_cost(x, x)), np.array([0, 4]), np.zeros(6), 8)
    >>> found[0].tolist()
    [1, 4]
    """
    n_train, _ = problem.cost.shape
    if len(rows) * (n_train - len(rows)) > most or problem.solver is not exact:
        return None
    best = None
    for slot in range(len(rows)):
        for row in np.setdiff1d(np.arange(n_train), rows):
            new = rows.copy()
            new[slot] = row
            if not meets(problem.wishes, new):
                continue
            found = (new, *solve(problem.cost, new, problem.solver, g))
            if best is None or found[-1].value < best[-1].value:
                best = found
    return best
