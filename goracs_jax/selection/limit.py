"""When a search must end before it would end by itself."""

import math
import time
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

from goracs_jax.errors import InputError


def nobody() -> bool:
    """Ask for nothing."""
    return False


class Limit(NamedTuple):
    """A time at which a search ends, and a question that may end it before.

    Programs are not interrupted: a search looks at its limit between them, and returns
    the best subset that it has.

    >>> Limit().up(), Limit.after(60).up(), Limit.after(60).up(soon=61)
    (False, False, True)
    """

    deadline: float = math.inf  # of time.perf_counter()
    asked: Callable[[], bool] = nobody

    @classmethod
    def after(
        cls, seconds: float | int | None, asked: Callable[[], bool] = nobody
    ) -> "Limit":
        """Return the limit that lies some seconds ahead; None stands for no time.

        Raises:
            InputError: The seconds are not above 0.

        >>> Limit.after(-1)
        Traceback (most recent call last):
        ...
        goracs_jax.errors.InputError: time_limit must be above 0 seconds, got -1.
        """
        if seconds is None:
            return cls(asked=asked)
        if not (isinstance(seconds, Real) and seconds > 0):
            raise InputError(f"time_limit must be above 0 seconds, got {seconds!r}.")
        return cls(time.perf_counter() + seconds, asked)

    def up(self, soon: float | int = 0) -> bool:
        """Tell whether the search must end now.

        Args:
            soon: Seconds that the next program takes: what would not end in time is not
                begun.
        """
        return self.asked() or self.left <= soon

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.deadline - time.perf_counter()

    def share(self, part: float) -> "Limit":
        """Return the limit of the first of several searches, which gets this part.

        >>> 29 < Limit.after(60).share(0.5).left < 30
        True
        """
        return self._replace(deadline=time.perf_counter() + part * self.left)


#: That of a search which ends by itself.
UNLIMITED = Limit()
