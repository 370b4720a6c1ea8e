"""Baselines that rank the training rows by a score or by the validation points."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from goracs_jax.cost import (
    Cost,
    centred_train,
    map_rows,
    median_distance,
    nearest_distances,
    nearest_rows,
    without_reward,
)
from goracs_jax.selection.baselines.random import selection_of
from goracs_jax.selection.problem import Problem, Selection, check_budget
from goracs_jax.selection.wishes.feasible import feasible_rows
from goracs_jax.shapes import AnyArray


def gradient_norm(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Choose the n rows with the largest gradient norms g_i; `key` is not used.

    This is GraNd at one checkpoint (Paul et al., NeurIPS 2021). Among equal norms the
    lowest row wins.

    >>> from goracs_jax.cost import make_cost
    >>> x, g = np.eye(3, dtype=np.float32), np.array([1.0, 2.0, 2.0])
    >>> problem = Problem(make_cost(x, x), grad_norms=g)
    >>> gradient_norm(problem, 1, key=jax.random.key(0)).indices.tolist()
    [1]
    """
    return _largest(problem, budget, problem.grad_norms)


def prediction_error(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Choose the n rows with the largest prediction errors; `key` is not used.

    This is EL2N (Paul et al., NeurIPS 2021) where the errors are
    ||softmax(logits) - one-hot||. Among equal errors the lowest row wins.

    >>> from goracs_jax.cost import make_cost
    >>> x, errors = np.eye(3, dtype=np.float32), np.array([0.2, 0.9, 0.4])
    >>> problem = Problem(make_cost(x, x), prediction_errors=errors)
    >>> prediction_error(problem, 2, key=jax.random.key(0)).indices.tolist()
    [1, 2]
    """
    return _largest(problem, budget, problem.prediction_errors)


def reward(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Choose the n rows with the largest rewards r_i; `key` is not used.

    With the loss drop as reward this is the rule of target-aligned paths (arXiv
    2605.09404), with the alignment that of one gradient step: example i lowers the loss
    of the validation set by the learning rate times <g_i, mean of its gradients>, to
    first order. Among equal rewards the lowest row wins.

    >>> from goracs_jax.cost import make_cost
    >>> x, r = np.eye(3, dtype=np.float32), np.array([-1.0, -3.0, 2.0])
    >>> problem = Problem(make_cost(x, x), rewards=r)
    >>> reward(problem, 2, key=jax.random.key(0)).indices.tolist()
    [0, 2]
    """
    return _largest(problem, budget, problem.rewards)


def doubly_greedy(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Choose the n rows that are nearest to any validation point; `key` is not used.

    The rows with the least min_j D_ij, as "doubly greedy" in arXiv 2602.14696, which
    ranks by the largest cosine: for rows of length 1 that is the same. Among equal
    distances the lowest row wins.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [4.0], [1.0]], np.float32)
    >>> problem = Problem(make_cost(x, np.array([[0.0], [9.0]])))
    >>> doubly_greedy(problem, 2, key=jax.random.key(0)).indices.tolist()
    [0, 2]
    """
    return _largest(problem, budget, -np.asarray(nearest_distances(problem.cost)))


def stratified_random(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Draw one row from each of n strata of distance to the validation set.

    The rows are sorted by min_j D_ij and cut into n strata of almost equal size.
    Coverage-centric selection (Zheng et al., ICLR 2023) has this idea for scores of
    difficulty, with strata of equal width.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[3.0], [1.0], [2.0]], np.float32)
    >>> problem = Problem(make_cost(x, np.zeros((1, 1))))
    >>> stratified_random(problem, 3, key=jax.random.key(0)).indices.tolist()
    [0, 1, 2]
    """
    n_train, _ = problem.cost.shape
    check_budget(n_train, budget)
    started = time.perf_counter()
    order = np.argsort(np.asarray(nearest_distances(problem.cost)), kind="stable")
    edges = np.arange(budget + 1) * n_train // budget
    places = jax.random.randint(key, (budget,), edges[:-1], edges[1:])
    return selection_of(problem, order[np.asarray(places)], started)


def nearest(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Let validation points in turn take their nearest row that is not yet taken.

    This is the round robin of RDS+ (Ivison et al., arXiv 2503.01807); `key` is not
    used. For rows of length 1 the nearest row has the largest cosine: of LESS's
    gradients this is greedy round robin (arXiv 2602.14696). Each point sees a short
    list of rows. When one runs out, a new pass over the rows that are left makes lists
    twice as long, but never longer than a block of C in all.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [1.0], [5.0], [9.0]], np.float32)
    >>> problem = Problem(make_cost(x, np.array([[0.0], [0.0]])))
    >>> nearest(problem, 2, key=jax.random.key(0)).indices.tolist()
    [0, 1]
    """
    n_train, n_valid = problem.cost.shape
    check_budget(n_train, budget)
    started = time.perf_counter()
    longest = min(n_train, max(1, problem.cost.tiling.most_entries // n_valid))
    length = min(longest, 2 * -(-budget // n_valid))
    taken = np.zeros(n_train, bool)
    turn = 0
    plain = without_reward(problem.cost)
    while turn < budget:
        lists = np.asarray(nearest_rows(plain, length, jnp.asarray(taken)).rows)
        turn = _take_turns(lists, taken, turn, budget)
        length = min(longest, 2 * length)
    return selection_of(problem, np.flatnonzero(taken), started)


def herding(
    problem: Problem, budget: int, *, key: jax.Array, median_entries: int = 1 << 20
) -> Selection:
    """Choose rows whose mean embedding follows that of the validation set.

    r_{t+1} = argmax_i mean_j k(x_i, y_j) - sum_{s <= t} k(x_i, x_{r_s}) / (t + 1) over
    the rows not taken (kernel herding, Chen, Welling and Smola, UAI 2010), with
    k(x, y) = exp(-||x - y||^2 / 2 sigma^2) and sigma the median of D.

    Args:
        problem: The distances are read, not the reward.
        budget: n.
        key: Not used.
        median_entries: Where C has more entries, sigma is the median over evenly spaced
            rows of it, with this many entries.

    Returns:
        The n rows.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [0.1], [5.0], [9.0]], np.float32)
    >>> herding(Problem(make_cost(x, x)), 2, key=jax.random.key(0)).indices.tolist()
    [0, 2]
    """
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    rows = _herd(problem.cost, budget, median_entries)
    return selection_of(problem, np.asarray(rows), started)


def _largest(problem: Problem, budget: int, scores: AnyArray | None) -> Selection:
    check_budget(problem.cost.shape[0], budget)
    started = time.perf_counter()
    assert scores is not None  # `checked_choice` refuses a method without what it needs
    wanted = -np.asarray(scores)
    if problem.wishes is not None:
        rows = feasible_rows(problem.wishes, wanted, budget)
    else:
        rows = np.argsort(wanted, kind="stable")[:budget]
    return selection_of(problem, rows, started)


def _take_turns(
    lists: Int[np.ndarray, "valid length"],
    taken: Bool[np.ndarray, " train"],
    turn: int,
    budget: int,
) -> int:
    """Mark rows in `taken` until all turns are over or the point to move has no row.

    Returns:
        The turn to go on with.
    """
    left = [iter(rows) for rows in lists]
    for now in range(turn, budget):
        row = next((row for row in left[now % len(left)] if not taken[row]), None)
        if row is None:
            return now
        taken[row] = True
    return budget


@partial(jax.jit, static_argnames=("budget", "median_entries"))
def _herd(cost: Cost, budget: int, median_entries: int) -> Int[jax.Array, " budget"]:
    cost = without_reward(cost)
    train = centred_train(cost)
    n_train, _ = cost.shape
    # In units of the cost; a median of zero would leave no kernel.
    median = median_distance(cost, median_entries)
    sigma = jnp.where(median > 0, median, 1.0)

    def kernel(distance: jax.Array) -> jax.Array:
        return jnp.exp(-((distance / sigma) ** 2) / 2)

    def pick(
        carry: tuple[jax.Array, jax.Array], t: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        repulsion, taken = carry
        row = jnp.argmax(jnp.where(taken, -jnp.inf, attraction - repulsion / (t + 1)))
        apart = jnp.linalg.norm(train - train[row], axis=1) / cost.distance_scale
        return (repulsion + kernel(apart), taken.at[row].set(True)), row

    attraction = map_rows(cost, lambda block: kernel(block.cost).mean(1))
    start = (jnp.zeros(n_train), jnp.zeros(n_train, bool))
    _, rows = jax.lax.scan(pick, start, jnp.arange(budget))
    return rows
