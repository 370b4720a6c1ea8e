"""The methods that are known by name: built in, registered, or plugged in.

A package that is installed beside this one adds methods by entry points in its
pyproject.toml, each a name and the place of a method:

    [project.entry-points."goracs_jax.methods"]
    first = "their_package.methods:first"
"""

import re
import warnings
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from goracs_jax.errors import InputError
from goracs_jax.selection.method.builtin import BUILT_IN
from goracs_jax.selection.method.record import Method

AnyMethod = TypeVar("AnyMethod", bound=Method)

GROUP = "goracs_jax.methods"
#: In a comparison "full" is the baseline that selects nothing.
RESERVED = ("full",)

METHODS: dict[str, Method] = {method.name: method for method in BUILT_IN}
"""All registered methods by name; `known_methods` adds those of other packages."""


def register(method: AnyMethod) -> AnyMethod:
    """Make a method known by its name, to Python, `select` and `compare` alike.

    Args:
        method: Any `Method`.

    Returns:
        The same method.

    Raises:
        InputError: The name is taken, reserved, or not in lower case.

    >>> register(METHODS["random"])
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: method name 'random' is taken: choose another.
    """
    name = method.name
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise InputError(
            f"method name {name!r} must be of lower-case letters, digits, '-', '_' and "
            "'.': flags and folders carry it."
        )
    if name in METHODS or name in RESERVED:
        raise InputError(f"method name {name!r} is taken: choose another.")
    METHODS[name] = method
    return method


def known_methods() -> dict[str, Method]:
    """Return `METHODS`, with the methods that installed packages add.

    >>> list(known_methods())[:3]
    ['goracs', 'greedy', 'itra']
    """
    _plug_in()
    return METHODS


def find_method(method: object) -> Method:
    """Return the method of a name; a method is returned as it is.

    Args:
        method: A name or a `Method`.

    Raises:
        InputError: The name is unknown, or the object is no method.

    >>> find_method("goracs").weighed
    True
    >>> find_method("best")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: method must be one of goracs, greedy, itra, ...
    """
    if not isinstance(method, str):
        if isinstance(method, Method):
            return method
        raise InputError(
            f"method must be a name or a Method, got {method!r}: make one of a "
            "function with FunctionMethod."
        )
    if method not in METHODS and method not in known_methods():
        names = ", ".join(METHODS)
        raise InputError(f"method must be one of {names}, got {method!r}.")
    return find_method(METHODS[method])  # checks an entry that was put there by hand


def heeding_methods() -> list[str]:
    """Name the methods that heed wishes and weights of validation rows.

    >>> heeding_methods()[:3]
    ['goracs', 'greedy', 'random']
    """
    known = known_methods()
    return [name for name, method in known.items() if getattr(method, "heeds", False)]


@cache
def _plug_in() -> None:
    """Register the methods of other packages, once; one that fails is warned of."""
    for entry in entry_points(group=GROUP):
        try:
            register(entry.load())
        except (ImportError, AttributeError, InputError) as error:
            warnings.warn(
                f"method {entry.name!r} of entry point {entry.value!r} is left out: "
                f"{error}",
                stacklevel=3,
            )
