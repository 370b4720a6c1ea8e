"""What the verbs print: plain lines and tables on standard output."""

from contextlib import AbstractContextManager

import jax
from rich.console import Console
from rich.table import Table

errors = Console(stderr=True)
console = Console(soft_wrap=True, highlight=False, markup=False)


def say(what: str | Table) -> None:
    """Print a line or a table, on process 0 alone.

    >>> say("done")
    done
    """
    if jax.process_index() == 0:
        console.print(what)


def waiting(what: str) -> AbstractContextManager:
    """A spinner on standard error while something without a count runs."""
    return errors.status(f"{what} ...")
