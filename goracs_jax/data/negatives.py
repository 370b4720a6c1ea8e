"""Draw negatives: items that a user has never seen, to rank the target among."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from goracs_jax.data.splits import Log, Rows
from goracs_jax.errors import InputError


def check_negatives(log: Log, rows: Rows, n: int) -> None:
    """Check that every user of the examples has at least n unseen items.

    Args:
        log: The interactions.
        rows: The examples, as rows of `log`.
        n: Number of negatives of each example.

    Raises:
        InputError: The user who has seen the most items has fewer than n unseen ones.
    """
    n_items = len(log.item_ids)
    pairs = np.unique(log.user * n_items + log.item)
    seen = np.bincount(pairs // n_items)[log.user[rows]]
    most = int(np.argmax(seen))
    if (left := n_items - seen[most]) < n:
        raise InputError(
            f"user {log.user_ids[log.user[rows[most]]]} has seen {seen[most]} of "
            f"{n_items} items: {n} negatives cannot be drawn from {left}; pass "
            f"--negatives {left} or fewer."
        )


def draw_negatives(
    log: Log, rows: Rows, n: int, *, rng: np.random.Generator
) -> Iterator[Int[np.ndarray, " negatives"]]:
    """Draw n distinct unseen items for each example, uniformly at random.

    An item is unseen if the user never interacts with it in the whole log, before or
    after the example; the target is therefore never drawn. What is drawn are ranks
    among the unseen items. If s_0 < s_1 < ... are the items that the user has seen, the
    unseen item of rank r is r + #{k: s_k - k <= r}.

    Args:
        log: The interactions.
        rows: The examples, as rows of `log`.
        n: Number of negatives of each example; see `check_negatives`.
        rng: Source of random numbers.

    Yields:
        The n items of one example, in the order of the draw.
    """
    counts = np.bincount(log.user)
    for row in rows:
        first = log.place[row] - log.before[row]
        own = log.by_user[first : first + counts[log.user[row]]]
        seen = np.unique(log.item[own])
        ranks = rng.choice(len(log.item_ids) - len(seen), n, replace=False)
        skipped = np.searchsorted(seen - np.arange(len(seen)), ranks, side="right")
        yield ranks + skipped
