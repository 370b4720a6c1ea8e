"""Times as flags have them."""

import re

from goracs_jax.errors import InputError

SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(text: str) -> float:
    """Read the time of a flag --time-limit, such as 90s, 60m or 1.5h.

    Raises:
        InputError: It is none.

    >>> seconds_of("1.5h")
    5400.0
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    if not found or not float(found[1]):
        raise InputError(f"--time-limit must be as 90s, 60m or 2h, got {text!r}.")
    return float(found[1]) * SECONDS[found[2]]
