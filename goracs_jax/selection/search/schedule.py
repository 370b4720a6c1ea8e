"""The schedule of an annealing, and how it is shortened to end in time."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from goracs_jax.selection.method import SimulatedAnnealing
from goracs_jax.selection.search.pair_exchange import pairs_per_sweep
from goracs_jax.selection.search.units import units_per_slot

DEFAULTS = SimulatedAnnealing()
# Schedules of an epoch are padded to a power of two, to 2^10 at least.
LEAST_ROOM = 10
# Share of the time that is left which an annealing may take, since an exchange of
# groups follows, and the share of this which transports may take.
ANNEALED, TRANSPORTED = 0.8, 0.5


class Plan(NamedTuple):
    """How long an annealing is."""

    epochs: int
    length: int  # sweeps of an epoch, and of the quench before all epochs


def plan_search(
    n: int,
    n_valid: int,
    settings: SimulatedAnnealing = DEFAULTS,
    mass: Float[np.ndarray, " valid"] | None = None,
) -> Plan:
    """Return the number of epochs and the number of sweeps in each.

    Little effort takes fewer epochs first, since each takes transports.

    >>> plan_search(1000, 5000), plan_search(8, 100, SimulatedAnnealing(effort=0.1))
    (Plan(epochs=15, length=769), Plan(epochs=5, length=10))
    """
    affordable = settings.transport_entries // (n * n_valid)
    epochs = min(settings.epochs, max(settings.fewest_epochs, affordable))
    one_sweep = entries_per_sweep(n, n_valid, settings, mass)
    affordable = max(1, settings.epoch_entries // one_sweep)
    length = settings.effort * epochs * min(settings.sweeps, 4 * n, affordable)
    fewest = min(epochs, settings.fewest_epochs)
    epochs = min(epochs, max(fewest, math.ceil(settings.effort * epochs)))
    return Plan(epochs, math.ceil(length / epochs))


def is_short(
    n: int,
    n_valid: int,
    settings: SimulatedAnnealing = DEFAULTS,
    mass: Float[np.ndarray, " valid"] | None = None,
) -> bool:
    """Tell whether a problem is so large for the effort that little schedule is left.

    >>> is_short(1000, 5000), is_short(1000, 22_000)
    (False, True)
    """
    plan, whole = plan_search(n, n_valid, settings, mass), min(settings.sweeps, 4 * n)
    return plan.epochs * plan.length < settings.least_share * settings.epochs * whole


def entries_per_sweep(
    n: int,
    n_valid: int,
    settings: SimulatedAnnealing = DEFAULTS,
    mass: Float[np.ndarray, " valid"] | None = None,
) -> int:
    """Return the entries of C that a sweep looks at.

    >>> entries_per_sweep(1000, 5000)  # 200 pairs, 26 rows for 10 units of each
    52000
    """
    units = 2 * units_per_slot(n, n_valid, settings.uneven, mass)
    return pairs_per_sweep(n) * (2 + settings.moves.drawn) * units


def plan_starts(n: int, settings: SimulatedAnnealing = DEFAULTS) -> tuple[int, int]:
    """Return how many annealings may find nothing in a row, and how many there are.

    >>> plan_starts(1000), plan_starts(64), plan_starts(2)
    ((1, 1), (2, 8), (16, 16))
    """
    starts = max(1, min(settings.starts, settings.started_slots // n))
    return min(starts, math.ceil(settings.effort * settings.idle_slots / n)), starts


class Pace(NamedTuple):
    """The seconds that parts of an annealing take here and now."""

    sweep: float
    epoch: float  # beside its sweeps

    def fit(self, plan: Plan, seconds: float) -> Plan:
        """Shorten a plan so that it ends in time; a length of 0 stands for none.

        >>> Pace(0.01, 0.125).fit(Plan(15, 1000), 10.0)  # transports take 2 s of 8
        Plan(epochs=15, length=37)
        >>> Pace(0.01, 1.0).fit(Plan(15, 1000), 10.0)  # and may take 4
        Plan(epochs=3, length=100)
        """
        time = ANNEALED * seconds
        affordable = int(min(TRANSPORTED * time / self.epoch, plan.epochs + 1)) - 1
        epochs = min(plan.epochs, max(2, affordable))
        each = time / (epochs + 1) - self.epoch
        return Plan(epochs, int(min(max(0.0, each / self.sweep), plan.length)))


def padded(temperatures: np.ndarray) -> Float[np.ndarray, " room"]:
    """Return a list of one of a few lengths, since each compiles a program.

    >>> len(padded(np.zeros(3))), len(padded(np.zeros(1025)))
    (1024, 2048)
    """
    room = 1 << max(LEAST_ROOM, (len(temperatures) - 1).bit_length())
    return np.pad(temperatures, (0, room - len(temperatures))).astype(np.float32)
