"""What a transport solver takes and returns."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from goracs_jax.shapes import AnyArray

CostMatrix = Float[AnyArray, "n m"]
RowMass = Float[AnyArray, " n"]
ColumnMass = Float[AnyArray, " m"]


class Transport(NamedTuple):
    """A solved problem: min_P <P, C> subject to P 1 = a and P^T 1 = b.

    Attributes:
        value: <P, C>.
        f: Potentials of the rows.
        g: Potentials of the columns.
        plan: P; its marginals are a and b.
        converged: Whether the solver reached its optimum or its threshold.
        marginal_error: L1 error of both marginals, before P was rounded onto them.
    """

    value: float
    f: Float[np.ndarray, " n"]
    g: Float[np.ndarray, " m"]
    plan: Float[np.ndarray, "n m"]
    converged: bool
    marginal_error: float


@runtime_checkable
class Solver(Protocol):
    """A function that solves a transport problem: `exact`, `sinkhorn`, or your own."""

    def __call__(
        self,
        cost: CostMatrix,
        a: RowMass | None = None,
        b: ColumnMass | None = None,
        *,
        g: Float[np.ndarray, " m"] | None = None,
    ) -> Transport:
        """Solve the problem.

        Args:
            cost: C, shape [n, m].
            a: Mass of each row, shape [n]; uniform if None.
            b: Mass of each column, shape [m]; uniform if None.
            g: Column potentials of a similar problem, to start from.
        """
        ...


def marginals(
    cost: Float[AnyArray, "n m"], a: RowMass | None, b: ColumnMass | None
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Return both marginals in float64, uniform where they are None.

    >>> marginals(np.ones((1, 2)), None, None)
    (array([1.]), array([0.5, 0.5]))
    """
    uniform = lambda size: np.full(size, 1 / size)
    n, m = cost.shape
    a = uniform(n) if a is None else np.asarray(a, np.float64)
    b = uniform(m) if b is None else np.asarray(b, np.float64)
    return a, b


def dual_value(
    cost: Float[np.ndarray, "n m"],
    g: Float[np.ndarray, " m"],
    b: ColumnMass | None = None,
) -> float:
    """Return sum_i a_i min_j (C_ij - g_j) + sum_j b_j g_j, for uniform a.

    The transport costs no less, whatever g is (weak duality).

    Args:
        cost: C, shape [n, m].
        g: Column potentials, shape [m].
        b: Mass of each column, shape [m]; uniform if None.

    >>> dual_value(np.array([[0.0, 2.0]]), np.array([0.0, 1.0]))
    0.5
    """
    g = np.asarray(g, np.float64)
    return float((cost - g).min(1).mean() + np.average(g, weights=b))
