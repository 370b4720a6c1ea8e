"""What the verbs print: lines and tables on standard output, spinners beside them."""

from contextlib import AbstractContextManager

import jax
from rich.console import Console
from rich.table import Table

stdout = Console(soft_wrap=True, highlight=False, markup=False)
stderr = Console(stderr=True)


def say(what: str | Table) -> None:
    """Print a line or a table, in process 0 alone.

    >>> say("done")
    done
    """
    if jax.process_index() == 0:
        stdout.print(what)


def waiting(what: str) -> AbstractContextManager:
    """Show a spinner on standard error while work without a count is running."""
    return stderr.status(f"{what} ...")
