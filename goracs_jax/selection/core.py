"""The core of an ascent: which training rows it sees, and how many points of each."""

import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.selection.method import LowerBound
from goracs_jax.selection.serving import points_served
from goracs_jax.selection.wishes.lagrangian import n_least, priced_least, prices
from goracs_jax.selection.wishes.record import Wishes

DEFAULTS = LowerBound()
# The widths of arcs are multiples of this, so that few programs are compiled.
WIDTHS = 16


def core_order(
    w: Float[np.ndarray, " train"],
    unwanted: Bool[np.ndarray, " train"],
    budget: int,
    wishes: Wishes | None,
) -> Int[np.ndarray, " train"]:
    """Order the rows for a core: those that make a subset first where there are wishes.

    The wanted ones follow, and then all others by their w_i.
    """
    if wishes is None:
        return np.lexsort((w, unwanted))
    price = prices(w, wishes, budget)
    priced = w if price is None else w + price
    outside = np.ones(len(w), bool)
    outside[n_least(priced, wishes, budget)] = False
    outside[priced_least(w, wishes, budget).rows] = False
    return np.lexsort((priced, wishes.closed, unwanted, outside))


def core_shape(
    shape: tuple[int, int],
    budget: int,
    distinct: int,
    settings: LowerBound = DEFAULTS,
    mass: Float[np.ndarray, " valid"] | None = None,
) -> tuple[int, int]:
    """Return the number of rows of a core, and the number of arcs of each.

    Args:
        shape: N and M.
        budget: n.
        distinct: Training rows that are no copies: the others take places in the core.
        settings: The size of a core.
        mass: b_j, where they differ.

    >>> core_shape((15_000, 5_000), 1000, 15_000), core_shape((12, 5), 6, 12)
    ((4000, 64), (12, 5))
    """
    n_train, n_valid = shape
    size = max(settings.least_core, settings.core * budget * n_train // distinct)
    served = points_served(budget, n_valid)
    if mass is not None:
        served = min(n_valid, 1 + 1 / (budget * float(np.median(mass[mass > 0]))))
    width = 4 * served + 3 * WIDTHS
    return min(n_train, size), min(n_valid, WIDTHS * round(width / WIDTHS))
