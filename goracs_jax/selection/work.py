"""What a selection by `goracs` does, counted before it runs.

How long the bound is ascended and how long is annealed follows from the sizes and the
settings, by the rules of `bound` and `search.schedule`. What depends on the numbers in
C has a least and a most: whether POO is so close to its bound that nothing is annealed,
how many annealings find something, and what `LOOKED_INTO` and `EXCHANGED` say.
"""

from typing import NamedTuple

from goracs_jax.cost import MATRIX_ENTRIES
from goracs_jax.selection.bound import plan_rounds
from goracs_jax.selection.method import Goracs
from goracs_jax.selection.search.schedule import (
    entries_per_sweep,
    is_short,
    plan_search,
    plan_starts,
)
from goracs_jax.selection.search.units import units_per_slot

#: Of six instances of 300 x 100 to 15,000 x 5,000 rows, the least and the most: passes
#: that the rows are worth whose gain the greedy start computes again, and passes that
#: one exchange of groups takes; where C is not kept, these may be over few rows.
LOOKED_INTO, EXCHANGED = (1, 6), (1, 4)


class SelectionWork(NamedTuple):
    """What a selection does."""

    passes: int  # over all entries of C
    exchanges: int  # those of the passes that also sum C over groups
    ascent: int  # steps of all ascents of the bound
    sweeps: int  # of all annealings
    entries: int  # of C that the sweeps look at
    transports: int  # exact ones of n x M


def selection_work(
    n_train: int, n_valid: int, budget: int, settings: Goracs | None = None
) -> tuple[SelectionWork, SelectionWork]:
    """Return the least and the most that a selection without wishes does.

    Args:
        n_train: N.
        n_valid: M.
        budget: n.
        settings: Those of the search; the defaults of `Goracs` when left out. They have
            a bound.

    >>> least, most = selection_work(15_000, 5_000, 1000)
    >>> least.sweeps, most.sweeps, least.transports
    (0, 12304, 2)
    """
    settings = settings or Goracs()
    bounding, annealing = settings.bound, settings.annealing
    if bounding is None:
        raise ValueError("a search without a bound is not planned.")
    scaled, gains = 1, 1  # passes that scale C, and that greedy begins with
    passes = [scaled + gains + looked for looked in LOOKED_INTO]
    if budget == n_train:  # there is nothing to choose
        first, second = (SelectionWork(p, 0, 0, 0, 0, 1) for p in passes)
        return first, second
    rounds = plan_rounds(n_train, n_valid, bounding)
    # A pass before every round and after the last, which may see few rows again where C
    # is not kept in memory; one more where a core was wrong.
    whole = rounds + 1 if n_train * n_valid <= MATRIX_ENTRIES else 1
    least, most = passes[0] + whole, passes[1] + 2 * rounds
    ascent = bounding.steps * (2**rounds - 1)
    few, many = EXCHANGED
    # The greedy subset and what the exchange starts from; each round may try one more.
    first = SelectionWork(least + few, few, ascent, 0, 0, 2)
    if budget == 1 or is_short(budget, n_valid, annealing):  # nothing is annealed
        return first, SelectionWork(most + many, many, ascent, 0, 0, 3 + many)
    (_, starts), plan = (
        plan_starts(budget, annealing),
        plan_search(budget, n_valid, annealing),
    )
    sweeps = starts * (1 + plan.epochs) * plan.length
    units = units_per_slot(budget, n_valid, annealing.uneven)
    # Units that are not the same in all columns are dealt by a transport of their own.
    solved = starts * plan.epochs * (1 if budget * units % n_valid == 0 else 2)
    second = SelectionWork(
        passes=most + 1 + 2 * many,  # the rows near each point are listed, too
        exchanges=2 * many,
        ascent=ascent,
        sweeps=sweeps,
        entries=sweeps * entries_per_sweep(budget, n_valid, annealing),
        transports=1 + (1 + many) + (1 + solved) + (1 + many),
    )
    return first, second
