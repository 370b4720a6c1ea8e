"""Tell whether what a compiler said of a program still holds."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jax.stages import Lowered

COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "jax-cuda13-pjrt")
#: The files that read a compiled program, beside this one.
READERS = ("compiled.py", "checks.py", "traced.py")


def fingerprint(lowered: Lowered, *given: Any) -> str:
    """Return a short hash of all that a program's entry depends on.

    That is the text which the compiler gets, its version, and the code that reads what
    it says. Two programs of one hash have one entry.

    Args:
        lowered: The program, as it goes to the compiler.
        given: What else its entry depends on, such as the bounds of the checks.

    >>> import jax, jax.numpy as jnp
    >>> of = lambda f: fingerprint(jax.jit(f).lower(jnp.zeros(3)))
    >>> of(jnp.sin) == of(jnp.sin), of(jnp.sin) == of(jnp.cos)
    (True, False)
    """
    found = hashlib.sha256(lowered.as_text().encode())
    for name in COMPILERS:
        try:
            found.update(f"{name} {version(name)}\n".encode())
        except PackageNotFoundError:
            continue
    for name in READERS:
        found.update((Path(__file__).parent / name).read_bytes())
    found.update(repr(given).encode())
    return found.hexdigest()[:16]
