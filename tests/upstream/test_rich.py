"""rich, seen in 15.0."""

from rich.progress import MofNCompleteColumn, TextColumn


def test_columns_of_a_bar_wrap():
    """rich 15.0: where a line is too short, the counts of a progress bar are wrapped.

    Its text columns keep their line, those that count do not. So `CountColumn`
    (goracs_jax/runs) gives counts a column that does not wrap: the bar gets shorter.
    """
    assert TextColumn("").get_table_column().no_wrap
    assert not MofNCompleteColumn().get_table_column().no_wrap, (
        "counts of rich keep their line: CountColumn can go"
    )
