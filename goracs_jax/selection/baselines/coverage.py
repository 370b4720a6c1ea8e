"""Baselines that cover the training rows and never look at the validation points."""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.cost import (
    Block,
    Cost,
    centred_train,
    fold_rows,
    to_points,
    without_reward,
)
from goracs_jax.selection.baselines.random import selection_of
from goracs_jax.selection.problem import Problem, Selection, check_budget
from goracs_jax.shapes import Train


def k_center(problem: Problem, budget: int, *, key: jax.Array) -> Selection:
    """Choose by farthest-first traversal of the training rows.

    r_1 is drawn, r_t = argmax_i min_{s < t} ||x_i - x_{r_s}||_2. The radius that covers
    all rows is at most twice the least one (Gonzalez, Theoretical Computer Science
    1985; for data selection Sener and Savarese, ICLR 2018).

    Args:
        problem: Only the training rows are read.
        budget: n.
        key: Draws the first row.

    Returns:
        The n rows; where all rows that are left coincide with a chosen one, the lowest
        row comes next.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [0.0], [5.0], [9.0]], np.float32)
    >>> k_center(Problem(make_cost(x, x)), 3, key=jax.random.key(2)).indices.tolist()
    [0, 2, 3]
    """
    train = centred_train(problem.cost)
    check_budget(len(train), budget)
    started = time.perf_counter()
    rows = _farthest_first(train, key, budget)
    return selection_of(problem, np.asarray(rows), started)


def k_means(
    problem: Problem, budget: int, *, key: jax.Array, rounds: int = 10
) -> Selection:
    """Choose the training rows nearest to the n centres of k-means.

    k-means++ draws the first centres (Arthur and Vassilvitskii, SODA 2007), Lloyd's
    algorithm moves each to the mean of its rows, and each then takes its nearest row
    that is not yet taken.

    Args:
        problem: Only the training rows are read.
        budget: n.
        key: Draws the first centres.
        rounds: Rounds of Lloyd's algorithm.

    Returns:
        The n rows.

    >>> from goracs_jax.cost import make_cost
    >>> x = np.array([[0.0], [1.0], [2.0], [8.0], [9.0], [10.0]], np.float32)
    >>> k_means(Problem(make_cost(x, x)), 2, key=jax.random.key(0)).indices.tolist()
    [1, 4]
    """
    train = centred_train(problem.cost)
    check_budget(len(train), budget)
    started = time.perf_counter()
    centres = _lloyd(problem.cost, train[_plus_plus(train, key, budget)], rounds)
    rows = _medoids(train, centres)
    return selection_of(problem, np.asarray(rows), started)


@partial(jax.jit, static_argnames="budget")
def _farthest_first(
    train: Train, key: jax.Array, budget: int
) -> Int[jax.Array, " budget"]:
    return _spread(train, key, budget, lambda squared, _: jnp.argmax(squared))


@partial(jax.jit, static_argnames="budget")
def _plus_plus(train: Train, key: jax.Array, budget: int) -> Int[jax.Array, " budget"]:
    """Draw the next row with a probability in proportion to its squared distance.

    Once every row coincides with a centre, row 0 is drawn again and again.
    """

    def draw(squared: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.categorical(key, jnp.log(jnp.maximum(squared, 0)))

    return _spread(train, key, budget, draw)


def _spread(
    train: Train,
    key: jax.Array,
    budget: int,
    choose: Callable[[jax.Array, jax.Array], jax.Array],
) -> Int[jax.Array, " budget"]:
    """Choose rows one by one by their squared distance to the nearest chosen row.

    That distance is -1 for the rows that are chosen already. The first row is uniform.
    """
    first_key, key = jax.random.split(key)

    def step(
        carry: tuple[jax.Array, jax.Array], key: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        nearest, row = carry
        nearest = jnp.minimum(nearest, _squared(train, train[row])).at[row].set(-1)
        return (nearest, choose(nearest, key)), row

    first = jax.random.randint(first_key, (), 0, len(train))
    start = (jnp.full(len(train), jnp.inf), first)
    _, rows = jax.lax.scan(step, start, jax.random.split(key, budget))
    return rows


def _squared(
    train: Train, point: Float[jax.Array, " dim"]
) -> Float[jax.Array, " train"]:
    # Differences, unlike a matrix product, give exactly zero for rows that coincide.
    return ((train - point) ** 2).sum(1)


@partial(jax.jit, static_argnames="rounds")
def _lloyd(
    cost: Cost, centres: Float[jax.Array, "budget dim"], rounds: int
) -> Float[jax.Array, "budget dim"]:
    budget, dim = centres.shape

    def move(_: int | jax.Array, centres: jax.Array) -> jax.Array:
        def add(
            carry: tuple[jax.Array, jax.Array], block: Block
        ) -> tuple[jax.Array, jax.Array]:
            sums, counts = carry
            # A product, because a scatter adds in no fixed order on a GPU.
            owner = jax.nn.one_hot(block.cost.argmin(1), budget) * block.fresh[:, None]
            added = jnp.matmul(
                owner.T, block.points, precision=jax.lax.Precision.HIGHEST
            )
            return sums + added, counts + owner.sum(0)

        # The cost with the centres as its columns is their distance matrix.
        apart = without_reward(to_points(cost, centres))
        start = (jnp.zeros_like(centres), jnp.zeros(budget))
        sums, counts = fold_rows(apart, start, add, dim)
        # A centre without rows stays where it is.
        return jnp.where(
            counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], centres
        )

    return jax.lax.fori_loop(0, rounds, move, centres)


@jax.jit
def _medoids(
    train: Train, centres: Float[jax.Array, "budget dim"]
) -> Int[jax.Array, " budget"]:
    def take(
        taken: Bool[jax.Array, " train"], centre: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        row = jnp.argmin(jnp.where(taken, jnp.inf, _squared(train, centre)))
        return taken.at[row].set(True), row

    _, rows = jax.lax.scan(take, jnp.zeros(len(train), bool), centres)
    return rows
