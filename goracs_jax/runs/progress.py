"""Progress bars on standard error: counts, rates and the time that is left."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from goracs_jax.mesh import leads


class CountColumn(ProgressColumn):
    """A column of numbers that stays on one line: a narrow terminal cuts the bar."""

    def get_table_column(self) -> Column:
        """Return a column that does not wrap."""
        return Column(no_wrap=True)


class RateColumn(CountColumn):
    """The number of items that are finished per second."""

    def render(self, task: Task) -> Text:
        """Return the rate, or nothing before it is known."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


class ExamplesColumn(CountColumn):
    """Finished examples, for a bar whose length counts tokens.

    Tokens take about equally long, examples do not.
    """

    def render(self, task: Task) -> Text:
        """Return how many are finished, and how many per second at this rate."""
        done, of = task.fields["examples"], task.fields["of"]
        per_token = of / max(task.total or 0, 1)
        rate = f" {task.speed * per_token:.1f}/s" if task.speed else ""
        return Text(f"{done}/{of}{rate}")


class TokensColumn(CountColumn):
    """Tokens per second, without padding."""

    def render(self, task: Task) -> Text:
        """Return the rate, or nothing before it is known."""
        return Text(f"{task.speed:,.0f} tokens/s" if task.speed else "")


def progress(*counts: ProgressColumn) -> Progress:
    """Make a progress bar that process 0 shows on standard error.

    Args:
        counts: The columns that count; by default finished items and their rate.
    """
    return Progress(
        TextColumn("{task.description:>24}"),
        BarColumn(),
        *(counts or (MofNCompleteColumn(), RateColumn())),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        # A console of its own: a spinner may be shown on the other one.
        console=Console(stderr=True),
        disable=not leads(),
    )
