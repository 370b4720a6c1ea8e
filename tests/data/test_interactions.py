import polars as pl
import pytest

from goracs_jax.data.interactions import read_recbole
from goracs_jax.data.splits import seqrec_splits
from goracs_jax.errors import InputError

INTER = """user_id:token\titem_id:token\trating:float\ttimestamp:float
1\t10\t3\t50
2\t11\t5\t20
1\t11\t4\t10
1\t12\t1\t30
1\t13\t1\t40
"""
ITEM = """item_id:token\tmovie_title:token_seq\trelease_year:token
10\tShe "Said"\t1995
11\tHeat\t1995
12\tFargo, The\t1996
13\tCrash\t1996
"""


def test_recbole_oldest_first(tmp_path):
    (tmp_path / "a.inter").write_text(INTER)
    (tmp_path / "a.item").write_text(ITEM)
    table = read_recbole(tmp_path / "a.inter", tmp_path / "a.item")
    assert table["user"].to_list() == ["1", "2", "1", "1", "1"]
    assert table["title"].to_list() == [
        "Heat",
        "Heat",
        "Fargo, The",
        "Crash",
        'She "Said"',
    ]
    assert table["timestamp"].is_sorted()


def test_windows_and_split():
    users = ["a"] * 6 + ["b"] * 2
    table = pl.DataFrame(
        {"user": users, "title": list("tuvwxyzz"), "timestamp": [*range(6), 6, 7]}
    )
    splits = seqrec_splits(table, n_valid=1, n_test=1, history=3, min_history=2)
    every = [*splits.train, *splits.valid, *splits.test]
    # b has no history of two; a has targets v, w, x, y.
    assert [record["output"] for record in every] == ['"v"', '"w"', '"x"', '"y"']
    assert splits.test[0]["input"] == '"v", "w", "x"'
    assert splits.train[0]["input"] == '"t", "u"'
    assert all(record["user"] == "a" for record in every)


def test_held_out_examples_must_leave_some():
    table = pl.DataFrame({"user": ["a"] * 9, "title": list("abcdefghi")})
    with pytest.raises(
        InputError, match=r"5 validation and 3 test .* there are 8 with"
    ):
        seqrec_splits(table, n_valid=5, n_test=3, min_history=1)
