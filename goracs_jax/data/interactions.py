"""Raw interaction files to one table: user, title, timestamp, oldest first."""

from pathlib import Path

import polars as pl


def read_recbole(inter: Path, item: Path) -> pl.DataFrame:
    """Read RecBole's atomic files: tab-separated, typed column names.

    Args:
        inter: `*.inter` with user_id, item_id and timestamp.
        item: `*.item` with item_id and movie_title.

    Returns:
        Columns user (str), title (str), timestamp (float, seconds), oldest first; ties
        in time are ordered by user, then as in the file.
    """

    def read(path: Path) -> pl.DataFrame:
        table = pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False)
        return table.rename({name: name.split(":")[0] for name in table.columns})

    titles = read(item).select("item_id", title="movie_title")
    table = read(inter).join(titles, on="item_id", how="inner", maintain_order="left")
    return table.select(
        pl.col("user_id").alias("user"), "title", pl.col("timestamp").cast(pl.Float64)
    ).sort("timestamp", "user", maintain_order=True)
