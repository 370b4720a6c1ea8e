r"""The values of many subsets that each differ from one subset in a single row.

Every pair (slot, entrant) is a transport problem of its own: the rows of C of the
subset, with the row of one slot replaced. All problems start from the potentials of the
present subset, so that a few Sinkhorn iterations are enough for most, and `vmap` runs
them side by side. The value of row potentials f is the unregularised dual

    V(f) = (1/n) sum_k f_k + (1/M) sum_j min_k (C_kj - f_k),

a lower bound of the transport cost for every f: with too few iterations a pair looks
better than it is, never worse.

An iteration reads n M costs twice and takes 2 n M exponentials. 900 pairs of
1,000 x 5,000 and 30 iterations are 2.7e11 exponentials and 1.1 TB of reads: 0.7 s per
pair on two CPU cores, ten minutes for all.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from goracs_jax.cost import BLOCK_ENTRIES
from goracs_jax.shapes import AnyArray

# Enough for most swaps. Where a swap moves mass between far clusters, not even 200
# bring the value near.
ITERATIONS = 30


@partial(jax.jit, static_argnames=("iterations", "batch_entries"))
def pair_values(
    subset_cost: Float[AnyArray, "budget valid"],
    entering: Float[AnyArray, "entrants valid"],
    slots: Int[AnyArray, " leavers"],
    g: Float[AnyArray, " valid"],
    epsilon: Float[AnyArray, ""],
    iterations: int = ITERATIONS,
    batch_entries: int = BLOCK_ENTRIES,
) -> tuple[Float[jax.Array, ""], Float[jax.Array, "leavers entrants"]]:
    """Compute Sinkhorn values of a subset and of its swaps, after equal iterations.

    Most of the error of regularisation cancels in the difference of two such values.

    Args:
        subset_cost: Rows of C of the subset S, less the mean of C so that float32
            keeps its digits, shape [n, M].
        entering: Rows of C that may enter, less the same mean, shape [entrants, M].
        slots: Positions in S whose row may leave, shape [leavers].
        g: Column potentials of the entropic transport of `subset_cost`, shape [M].
        epsilon: Regularisation, in the units of C.
        iterations: Sinkhorn iterations of every problem, a multiple of ten.
        batch_entries: The most entries of C that problems side by side have together.

    Returns:
        The value of S; and at [p, q] the value of S with the row of slot `slots[p]`
        replaced by `entering[q]`, shape [leavers, entrants].

    >>> eye = jnp.eye(2)
    >>> kept, swapped = pair_values(eye, eye[:1], jnp.array([0, 1]), jnp.zeros(2), 0.01)
    >>> kept.round(2).item(), swapped.round(2).ravel().tolist()
    (0.0, [0.0, 0.5])
    """
    # ott-jax takes two seconds to import, so only its users wait.
    from ott.geometry import epsilon_scheduler, geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    n, m = subset_cost.shape
    subset_cost, entering, g = map(jnp.asarray, (subset_cost, entering, g))
    target = jnp.asarray(epsilon)
    # With equal least and most iterations, ott runs a scan.
    solver = sinkhorn.Sinkhorn(
        threshold=0.0, min_iterations=iterations, max_iterations=iterations
    )

    def value(cost: jax.Array) -> jax.Array:
        # Row potentials that fit g, also for the row that is new.
        f = -target * (jnp.log(n) + jax.nn.logsumexp((g - cost) / target, axis=1))
        geom = geometry.Geometry(cost, epsilon=epsilon_scheduler.Epsilon(target))
        f = solver(linear_problem.LinearProblem(geom), init=(f, jnp.asarray(g))).f
        return f.mean() + (cost - f[:, None]).min(0).mean()

    def swapped(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        slot, entrant = pair
        return value(subset_cost.at[slot].set(entering[entrant]))

    grid = jnp.meshgrid(jnp.asarray(slots), jnp.arange(len(entering)), indexing="ij")
    pairs = tuple(side.ravel() for side in grid)
    values = jax.lax.map(swapped, pairs, batch_size=max(1, batch_entries // (n * m)))
    return value(subset_cost), values.reshape(grid[0].shape)
