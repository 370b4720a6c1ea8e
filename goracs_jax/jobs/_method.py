"""Stand-in for the registry of methods."""

from typing import NamedTuple

from goracs_jax.errors import InputError
from goracs_jax.selection import SELECTORS


class Method(NamedTuple):
    name: str
    needs: tuple[str, ...]
    weighed: bool


def _of(name):
    weighed = name in ("goracs", "greedy", "itra")
    needs = {
        "random": (),
        "grad-norm": ("grad_norms",),
        "error": ("prediction_errors",),
    }
    return Method(name, needs.get(name, ("embeddings",)), weighed)


METHODS = {name: _of(name) for name in SELECTORS}


def find_method(name):
    if name not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {name!r}.")
    return METHODS[name]


def needs_of(method, lambda_):
    extra = ("grad_norms",) if method.weighed and lambda_ > 0 else ()
    return (*method.needs, *extra)
