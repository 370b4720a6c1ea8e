r"""Unbalanced optimal transport of all training rows, in passes over C."""

import math
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from goracs_jax.cost import (
    Block,
    Cost,
    fold_rows,
    largest_distance,
    map_rows,
    nearest_rows,
    without_reward,
)
from goracs_jax.errors import InputError
from goracs_jax.selection.baselines.random import selection_of
from goracs_jax.selection.method import UnbalancedOT
from goracs_jax.selection.problem import Problem, Selection, check_budget

# Error of a logarithm of a mass. float32 holds exponents, which are up to 1 / reg, to
# 1e-5 where reg is 0.01.
TOLERANCE = 1e-4


def unbalanced_ot(
    problem: Problem, budget: int, *, key: jax.Array, settings: UnbalancedOT
) -> Selection:
    """Choose the n rows that carry most mass in a transport that chooses masses.

    "UOT" of arXiv 2602.14696: the entropic transport P of all rows to the validation
    points that keeps the mass 1 / M of every point, and pays for row masses P 1 that
    differ from the uniform measure u,

        min <P, (D / max D)^2> + reg KL(P | u v^T) + relax KL(P 1 | u),  P^T 1 = v.

    For rows of length 1 the squared distance is 2 - 2 cos, and where two of them are
    opposite the cost is the (1 - cos) / 2 of the paper.

    Args:
        problem: The distances are read, not the reward.
        budget: n.
        key: Not used.
        settings: The two weights.

    Returns:
        The n rows; among equal masses the lowest row wins.

    Raises:
        InputError: A weight is out of range.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [1.0], [1.1], [9.0]], np.float32)
    >>> problem = Problem(make_cost(x, np.array([[1.0], [1.2]])))
    >>> method, key = UnbalancedOT(), jax.random.key(0)
    >>> unbalanced_ot(problem, 2, key=key, settings=method).indices.tolist()
    [1, 2]
    """
    check_budget(problem.cost.shape[0], budget)
    reg, relax = settings.regularisation, settings.relaxation
    if not (1e-3 <= reg < math.inf and 0 < relax <= 10 * reg):
        raise InputError(
            "regularisation must be at least 0.001 and relaxation in (0, 10 "
            f"regularisation], got {reg} and {relax}: float32 holds no smaller "
            "exponents, and larger relaxations converge slowly."
        )
    started = time.perf_counter()
    plain = without_reward(problem.materialize(problem.cost))
    mass = np.asarray(log_masses(plain, reg, relax / (relax + reg)))
    rows = np.argsort(-mass, kind="stable")[:budget]
    return selection_of(problem, rows, started)


def log_masses(cost: Cost, reg: float, damping: float) -> Float[jax.Array, " train"]:
    r"""Compute the logarithm of every row's mass by scaling iterations.

    With h_j the logarithm of the scaling of column j, one pass makes of each row

        r_i = log sum_j exp(h_j - c_ij / reg) / M,    log u_i = -damping r_i

    and scales the columns by what they then carry (Chizat et al., Mathematics of
    Computation 2018, with damping = relax / (relax + reg)). The error shrinks by the
    factor `damping` at least with every pass, which says how many passes suffice. A row
    then has the mass exp((1 - damping) r_i) / N.

    Args:
        cost: C without a reward; c_ij is (D_ij / max D)^2.
        reg: Entropic regularisation.
        damping: How much rows keep of the scaling that a uniform measure asks for.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [1.0], [1.0]], np.float32)
    >>> jnp.exp(log_masses(make_cost(x, x[1:]), 0.1, 0.01)).round(2).tolist()
    [0.0, 0.5, 0.5]
    """
    n_train, n_valid = cost.shape
    distance = 1 / reg + math.log(n_train * n_valid)  # of the start to the solution
    rounds = 1 + math.ceil(math.log(TOLERANCE / distance) / math.log(damping))
    unit = largest_distance(cost) ** 2
    return _scaled(cost, jnp.float32(reg * unit), jnp.float32(damping), rounds)


@partial(jax.jit, static_argnames="rounds")
def _scaled(
    cost: Cost, reg: Float[jax.Array, ""], damping: Float[jax.Array, ""], rounds: int
) -> Float[jax.Array, " train"]:
    n_train, n_valid = cost.shape

    def scaled(h: jax.Array, block: Block) -> jax.Array:
        return h - block.cost**2 / reg - math.log(n_valid)

    def row_sums(h: jax.Array, block: Block) -> jax.Array:
        return jax.scipy.special.logsumexp(scaled(h, block), axis=1)

    def step(_: int | jax.Array, h: jax.Array) -> jax.Array:
        def add(carried: jax.Array, block: Block) -> jax.Array:
            log_u = -damping * row_sums(h, block)
            mass = jnp.exp(scaled(h, block) + log_u[:, None])
            return carried + (mass * block.fresh[:, None]).sum(0)

        carried = fold_rows(cost, jnp.zeros(n_valid), add) / n_train
        return h - jnp.log(carried) - math.log(n_valid)

    # Each column starts from its nearest row, so that no sum underflows.
    start = nearest_rows(cost, 1).cost[:, 0] ** 2 / reg
    h = jax.lax.fori_loop(0, rounds, step, start)
    sums = map_rows(cost, lambda block: row_sums(h, block))
    return (1 - damping) * sums - math.log(n_train)
