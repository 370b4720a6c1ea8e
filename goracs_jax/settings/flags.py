"""The flags that the fields of a settings class stand for.

A field's name is its flag, its docstring the help. The class that declares a field is
its group: `group` is the title under which help shows it.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, get_args


@dataclass(frozen=True, kw_only=True)
class Flag:
    """An annotation of a field, where its type and docstring do not say enough.

    Args:
        default: The default in words, where it depends on other flags.
        more: Returns lines for the end of the help, known when help is printed.
        each: Reads one of several values with commas between them, each kept once.
        metavar: What a value, or one of several, is called in help.
        writes: What the verb writes, if the flag's path is that of an output: patterns
            of paths beside it, in which {name} and {stem} are those of the path.
        reads: Expression that finds the names of files in the value of a flag that is
            not a path itself.
    """

    default: str = ""
    more: Callable[[], str] | None = None
    each: Callable[[str], Any] | None = None
    metavar: str = ""
    writes: tuple[str, ...] = ()
    reads: str = ""


class FlagOf(NamedTuple):
    """A field of the settings as the command line sees it."""

    field: Field
    group: str
    help: str

    @property
    def name(self) -> str:
        """The flag without its dashes: `lambda_` is `lambda`."""
        return flag_name(self.field.name)

    @property
    def flag(self) -> Flag:
        """The annotation of the field; an empty one where there is none."""
        found = [x for x in get_args(self.field.type) if isinstance(x, Flag)]
        return found[0] if found else Flag()

    @property
    def required(self) -> bool:
        """Whether the field has no default."""
        return self.field.default is MISSING


def flag_name(name: str) -> str:
    """Return the name of a field, or a key of a configuration file, as a flag.

    >>> flag_name("lambda_"), flag_name("dry_run")
    ('lambda', 'dry-run')
    """
    return name.strip("_").replace("_", "-")


def flags_of(kind: type) -> list[FlagOf]:
    """List the flags of a settings class: its own, then those of its bases in order.

    >>> from goracs_jax.settings import Merge
    >>> [flag.name for flag in flags_of(Merge)]
    ['model', 'adapter', 'out', 'dtype', 'revision', 'config', 'dry-run', 'seed']
    """
    known = {field.name: field for field in fields(kind)}
    found = {}
    for owner in kind.__mro__[:-1]:
        told = dict(_docstrings(owner))
        for name in vars(owner).get("__annotations__", {}):
            if name in known and name not in found:
                group = vars(owner).get("group", "options")
                found[name] = FlagOf(known[name], group, told.get(name, ""))
    return list(found.values())


def _docstrings(kind: type) -> Iterator[tuple[str, str]]:
    """Yield each field of a class with the string below it, on one line."""
    for statement in _module(kind.__module__).body:
        if isinstance(statement, ast.ClassDef) and statement.name == kind.__name__:
            for field, told in pairwise(statement.body):
                match field, told:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ):
                        yield name, " ".join(text.split())


@cache
def _module(name: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[name]))
