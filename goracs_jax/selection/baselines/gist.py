"""GIST: alignment with the validation set in its leading directions."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from goracs_jax.cost import Block, Cost, map_rows
from goracs_jax.selection.baselines.random import selection_of
from goracs_jax.selection.method import Gist
from goracs_jax.selection.problem import Problem, Selection, check_budget
from goracs_jax.spaces import leading_directions


def gist(problem: Problem, budget: int, *, key: jax.Array, settings: Gist) -> Selection:
    """Choose the rows that point where the validation rows do, in their own subspace.

    With the leading right singular vectors V_k of the validation rows as given (they
    are not centred), row i has the score

        cos(V_k' x_i, V_k' mean of y_j)

    (GIST, arXiv 2602.18584, for one target; inside classes each class is a target of
    its own). k is the least number of directions that hold a share `energy` of the sum
    of squared singular values, and at least two.

    Args:
        problem: The rows are read, not their distances.
        budget: n.
        key: Not used.
        settings: The share.

    Returns:
        The n rows with the largest scores; among equal ones the lowest row wins.

    Raises:
        InputError: As `goracs_jax.spaces.leading_directions`.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[1.0, 0.0], [1.0, 1.0], [-1.0, 1.0]], np.float32)
    >>> problem = Problem(make_cost(x, np.array([[0.0, 1.0], [0.0, 2.0]], np.float32)))
    >>> gist(problem, 1, key=jax.random.key(0), settings=Gist()).indices.tolist()
    [1]
    """
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    cost = problem.cost
    valid = np.asarray(cost.valid, np.float64) + np.asarray(cost.mean, np.float64)
    if valid.any():
        directions = leading_directions(valid, energy=settings.energy)
    else:  # nothing to be aligned with: all scores are 0
        directions = np.zeros((valid.shape[1], 1))
    target = directions.T @ valid.mean(axis=0)
    scores = np.asarray(_alignments(cost, jnp.float32(directions), jnp.float32(target)))
    rows = np.argsort(-scores, kind="stable")[:budget]
    return selection_of(problem, rows, started)


@jax.jit
def _alignments(
    cost: Cost,
    directions: Float[jax.Array, "dim k"],
    target: Float[jax.Array, " k"],
) -> Float[jax.Array, " train"]:
    def of(block: Block) -> jax.Array:
        rows = block.points + jnp.asarray(cost.mean)
        z = jnp.matmul(rows, directions, precision=jax.lax.Precision.HIGHEST)
        lengths = jnp.linalg.norm(z, axis=1) * jnp.linalg.norm(target)
        # A row without a direction is aligned with nothing.
        return jnp.where(lengths > 0, (z * target).sum(1) / lengths, 0.0)

    return map_rows(cost, of)
