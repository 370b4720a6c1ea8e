"""The work that is planned, beside what a search of the same size was counted to do."""

from collections import Counter

import jax
import pytest
from instances import instance

from goracs_jax.selection import bound
from goracs_jax.selection.method import Goracs, SimulatedAnnealing
from goracs_jax.selection.search import annealing, candidates, group_exchange, stages
from goracs_jax.selection.search import greedy as greedy_stage
from goracs_jax.selection.search import units as unit_stage
from goracs_jax.selection.search.units import units_per_slot
from goracs_jax.selection.work import selection_work

BRIEF = {"epochs": 2, "fewest_epochs": 2, "sweeps": 9, "starts": 3}


@pytest.fixture
def counted(monkeypatch):
    """Counts of calls, or of what they do, in a search."""
    counts = Counter()

    def count(module, name, what, size=lambda *_: 1):
        plain = getattr(module, name)

        def counting(*given, **more):
            counts[what] += size(*given)
            return plain(*given, **more)

        monkeypatch.setattr(module, name, counting)

    count(annealing, "sweeps", "sweeps", lambda *given: given[5])
    for module in (stages, annealing, group_exchange):
        count(module, "solve", "transports")
    count(unit_stage, "exact", "transports")
    count(bound, "values_at", "bounds")
    count(bound, "ascend", "ascent", lambda *given: given[5])
    count(candidates, "_least", "exchanges")
    count(annealing, "nearest_rows", "lists")
    plain = greedy_stage.map_some

    def looking(cost, rows, of):
        look = lambda: counts.update(looked_into=len(rows))
        jax.debug.callback(look)
        return plain(cost, rows, of)

    monkeypatch.setattr(greedy_stage, "map_some", looking)
    jax.clear_caches()  # or the greedy program of another test would be run
    yield counts
    jax.clear_caches()


@pytest.mark.parametrize(
    ("n_train", "n_valid", "budget", "gap"),
    [(90, 30, 6, -1.0), (90, 30, 6, 1.0), (150, 64, 20, -1.0)],
)
def test_a_search_does_what_is_planned(n_train, n_valid, budget, gap, counted):
    case = instance(n_train, n_valid, seed=0)
    # A gap of 1 is never reached: nothing is annealed.
    brief = SimulatedAnnealing(gap=gap, slot_gap=gap, **BRIEF)
    settings, key = Goracs(annealing=brief), jax.random.key(0)
    stages.all_stages(case.problem, budget, key=key, settings=settings)
    jax.effects_barrier()
    least, most = selection_work(n_train, n_valid, budget, settings)
    looked_into = counted["looked_into"] / n_train
    # The distances are scaled before the search, and greedy begins with a pass.
    passes = 2 + looked_into + counted["bounds"] + counted["lists"]
    passes += counted["exchanges"]
    assert passes <= most.passes
    assert passes - looked_into >= least.passes - 1
    assert counted["exchanges"] <= most.exchanges
    assert counted["ascent"] == least.ascent == most.ascent
    assert least.transports <= counted["transports"] <= most.transports
    annealed = gap < 0 and budget > 1
    assert bool(counted["sweeps"]) is annealed
    if annealed:
        # An annealing of two epochs and a quench, three times at most.
        one = most.sweeps // 3
        assert counted["sweeps"] in (one, 2 * one, 3 * one)
        pairs, rows = max(1, budget // 5), 2 + brief.moves.drawn
        seen = pairs * rows * 2 * units_per_slot(budget, n_valid)
        assert most.entries == most.sweeps * seen


def test_all_rows_leave_nothing_to_search():
    for work in selection_work(10, 5, 10):
        assert work.transports == 1
        assert work[1:5] == (0, 0, 0, 0)
