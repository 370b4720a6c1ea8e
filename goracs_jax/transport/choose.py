"""Find a transport solver by its name."""

import jax

from goracs_jax.errors import InputError
from goracs_jax.transport.exact import exact
from goracs_jax.transport.sinkhorn import sinkhorn
from goracs_jax.transport.types import Solver

SOLVERS: dict[str, Solver] = {"exact": exact, "sinkhorn": sinkhorn}
# On accelerators, by estimate: Sinkhorn's launches and passes take less time there than
# exact transport takes on the host (benchmarks/launches.py).
EXACT_ENTRIES = 1 << 22


def find_solver(
    name: str, n: int, m: int, *, exact_entries: int = EXACT_ENTRIES
) -> Solver:
    """Return the solver of a name.

    "auto" is exact on CPUs, where exact transport is the faster one at every size that
    benchmarks/transport.py measures. On accelerators it is exact up to some size, above
    which a search would wait for the host.

    Args:
        name: "auto", "exact" or "sinkhorn".
        n: Rows of the cost matrix.
        m: Columns of the cost matrix.
        exact_entries: On accelerators, the most entries for which "auto" is exact.

    Raises:
        InputError: No solver has this name.

    >>> find_solver("auto", 1000, 5000) is exact
    True
    """
    if name == "auto":
        on_cpu = jax.default_backend() == "cpu"
        return exact if on_cpu or n * m <= exact_entries else sinkhorn
    if name not in SOLVERS:
        names = ", ".join(("auto", *SOLVERS))
        raise InputError(f"solver must be one of {names}, got {name!r}.")
    return SOLVERS[name]
