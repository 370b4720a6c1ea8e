import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goracs_jax.data.interactions import RATINGS, TITLES, k_core, tidy
from goracs_jax.errors import InputError


def ratings(rows) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=RATINGS, orient="row")


def titles(rows) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TITLES, orient="row")


ALL = titles([(item, item.upper()) for item in "abc"])


def k_core_loop(pairs, k):
    """One row after the other, until a whole pass drops none."""
    left = list(pairs)
    while True:
        kept = [
            (user, item)
            for user, item in left
            if sum(u == user for u, _ in left) >= k
            and sum(i == item for _, i in left) >= k
        ]
        if kept == left:
            return left
        left = kept


PAIRS = st.lists(
    st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcd")), max_size=30
)


@given(PAIRS, st.integers(1, 4))
def test_k_core_is_that_of_a_loop(pairs, k):
    table = pl.DataFrame(
        pairs, schema={"user": pl.String, "item": pl.String}, orient="row"
    )
    assert k_core(table, k).rows() == k_core_loop(pairs, k)


def test_k_core_needs_more_than_one_pass():
    # Without c, w has one row; without w, b has one; nothing stops the fall.
    table = ratings([(u, i, 1.0, 0.0) for u, i in ["ua", "va", "ub", "wb", "wc"]])
    with pytest.raises(InputError, match=r"no interaction is left with --core"):
        tidy(table, ALL, core=2)


def test_ties_are_ordered_by_user_then_as_in_the_file():
    rows = [("v", "a", 1, 2), ("u", "b", 1, 2), ("u", "a", 1, 2), ("w", "a", 1, 1)]
    table = tidy(ratings(rows), ALL).table
    assert table.select("user", "item").rows() == [
        *map(tuple, ["wa", "ub", "ua", "va"])
    ]


REPEATED = [("u", "a", 5, 3), ("u", "a", 1, 1), ("u", "a", 2, 1), ("v", "a", 4, 1)]


@pytest.mark.parametrize(
    ("repeats", "left"),
    [(False, [("u", 1), ("v", 4)]), (True, [("u", 1), ("v", 4), ("u", 5)])],
)
def test_of_repeated_interactions_the_oldest_stays(repeats, left):
    table, steps = tidy(ratings(REPEATED), ALL, repeats=repeats)
    assert table.select("user", "rating").rows() == left
    assert steps[1].dropped == 4 - len(left)


def test_the_first_title_counts_and_items_without_one_are_dropped():
    named = titles([("a", None), ("a", "First"), ("a", "Second"), ("b", None)])
    rows = [("u", item, 1, time) for time, item in enumerate("abc")]
    table, steps = tidy(ratings(rows), named)
    assert table["title"].to_list() == ["First"]
    assert (steps[2].step, steps[2].dropped) == ("untitled", 2)


def test_every_step_is_counted():
    rows = [
        *[(user, item, 4, 1) for user in "uv" for item in "ab"],
        ("u", "a", 4, 2),
        ("u", "z", 4, 3),
        ("u", "c", None, 4),
        ("w", "a", 1, 5),
    ]
    table, steps = tidy(ratings(rows), ALL, rated=True, core=2)
    assert [tuple(step) for step in steps] == [
        ("read", 3, 4, 8, 0),
        ("repeated", 3, 4, 7, 1),
        ("untitled", 3, 3, 6, 1),
        ("unrated", 3, 2, 5, 1),
        ("core", 2, 2, 4, 1),
    ]
    assert len(table) == 4


@pytest.mark.parametrize(
    ("rows", "named", "message"),
    [
        ([], ALL, r"no interaction is left at all: check that the file"),
        ([("u", "a", 1, 1)], titles([]), r"has a title: check that both files use"),
        ([("u", "a", None, 1)], ALL, r"has a rating: .*--rating-column"),
    ],
)
def test_nothing_left(rows, named, message):
    with pytest.raises(InputError, match=message):
        tidy(ratings(rows), named, rated=True)


def test_the_order_of_lines_matters_for_ties_alone():
    rng = np.random.default_rng(0)
    rows = [(u, i, 1.0, float(t)) for t, (u, i) in enumerate(["ua", "vb", "ub", "va"])]
    expected = tidy(ratings(rows), ALL).table
    shuffled = [rows[i] for i in rng.permutation(4)]
    assert tidy(ratings(shuffled), ALL).table.equals(expected)
