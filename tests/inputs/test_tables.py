"""Rows of tables that follow each other, whose columns need not be the same."""

import numpy as np
import polars as pl
import pytest

from goracs_jax.inputs.tables import batches, take_rows


def shards(folder, *frames):
    paths = [folder / f"x-{i}.parquet" for i in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        frame.write_parquet(path)
    return paths


ONE = pl.DataFrame({"a": [1, 2], "b": [None, None]})
TWO = pl.DataFrame({"a": [3, 4], "b": ["x", "y"], "c": [0.5, 1.5]})


@pytest.mark.parametrize("rows", [[3, 0], [1], [2, 3], [0, 1, 2, 3]])
def test_rows_are_those_of_the_joined_shards(tmp_path, rows):
    found = take_rows(shards(tmp_path, ONE, TWO), np.array(rows))
    whole = [*ONE.with_columns(c=None).to_dicts(), *TWO.to_dicts()]
    assert found is not None
    assert found.to_dicts() == [whole[row] for row in rows]
    assert found.schema["b"] == pl.String


def test_columns_whose_types_do_not_go_together(tmp_path):
    lists = pl.DataFrame({"a": [[1]], "b": ["z"]})
    assert take_rows(shards(tmp_path, ONE, lists), np.array([0, 2])) is None


@pytest.mark.parametrize("write", ["write_parquet", "write_ipc", "write_ipc_stream"])
def test_columns_are_read_alone(tmp_path, write):
    getattr(TWO, write)(tmp_path / "x")
    (found,) = batches(tmp_path / "x", ["c", "none", "a"])
    assert found.select("a", "c").equals(TWO.select("a", "c"))
    assert set(found.columns) == {"a", "c"}
    (none,) = batches(tmp_path / "x", ["none"])
    assert none.columns == []
