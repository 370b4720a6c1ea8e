"""Items that a user has never seen, to rank a target among."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from goracs_jax.data.splits import Log, Rows
from goracs_jax.errors import InputError


def check_negatives(log: Log, rows: Rows, n: int) -> None:
    """Refuse a number of negatives that some user leaves no room for.

    Raises:
        InputError: The user who has seen the most items, and what is left.
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
    """Draw n items for each example, all that are possible equally likely.

    They are distinct, and the user has none of them in the whole log, before or after;
    so the target is not among them. Drawn as ranks among the items that are not seen,
    s_0 < s_1 < ... being those that are: the item of rank r is r + #{k: s_k - k <= r}.

    Args:
        log: The interactions.
        rows: The examples.
        n: How many for each.
        rng: Of the draw.

    Yields:
        Items of one example, in the order of the draw.
    """
    counts = np.bincount(log.user)
    for row in rows:
        first = log.place[row] - log.before[row]
        own = log.by_user[first : first + counts[log.user[row]]]
        seen = np.unique(log.item[own])
        ranks = rng.choice(len(log.item_ids) - len(seen), n, replace=False)
        skipped = np.searchsorted(seen - np.arange(len(seen)), ranks, side="right")
        yield ranks + skipped
