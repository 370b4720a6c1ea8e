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


def is_entropic(platform: str, n: int, m: int) -> bool:
    """Tell whether "auto" is Sinkhorn on devices of a platform, as JAX calls it.

    >>> is_entropic("gpu", 1024, 22_000), is_entropic("cpu", 1024, 22_000)
    (True, False)
    """
    return platform != "cpu" and n * m > EXACT_ENTRIES


def find_solver(name: str, n: int, m: int) -> Solver:
    """Return the solver of a name.

    "auto" is exact on CPUs, where exact transport is the faster one at every size that
    benchmarks/transport.py measures. On accelerators it is exact up to some size, above
    which a search would wait for the host.

    Args:
        name: "auto", "exact" or "sinkhorn".
        n: Rows of the cost matrix.
        m: Columns of the cost matrix.

    Raises:
        InputError: No solver has this name.

    >>> find_solver("auto", 1000, 5000) is exact
    True
    """
    if name == "auto":
        return sinkhorn if is_entropic(jax.default_backend(), n, m) else exact
    if name not in SOLVERS:
        names = ", ".join(("auto", *SOLVERS))
        raise InputError(f"solver must be one of {names}, got {name!r}.")
    return SOLVERS[name]
