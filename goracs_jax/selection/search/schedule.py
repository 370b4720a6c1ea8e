"""The schedule of an annealing, and how it is shortened to end in time."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Schedules of an epoch are padded to a power of two, to 2^10 at least.
LEAST_ROOM = 10
# Share of the time that is left which an annealing may take, since an exchange of
# groups follows, and the share of this which transports may take.
ANNEALED, TRANSPORTED = 0.8, 0.5


class Plan(NamedTuple):
    """How long an annealing is."""

    epochs: int
    length: int  # sweeps of an epoch, and of the quench before all epochs


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
