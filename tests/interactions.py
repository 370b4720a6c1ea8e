"""Random interactions for the tests of splits, negatives and records."""

import polars as pl
from hypothesis import strategies as st

from goracs_jax.data.splits import make_log

SCHEMA = {
    "user": pl.String,
    "item": pl.String,
    "title": pl.String,
    "rating": pl.Float64,
    "timestamp": pl.Float64,
}


def log_of(pairs):
    """Interactions one second apart; ratings go through 1, 2, ... 5."""
    rows = [
        (user, item, item.upper(), 1.0 + t % 5, float(t))
        for t, (user, item) in enumerate(pairs)
    ]
    return make_log(pl.DataFrame(rows, schema=SCHEMA, orient="row"))


# Each pair once: a user has an item once.
PAIRS = st.lists(
    st.tuples(st.sampled_from("uvwxy"), st.sampled_from("abcdefghij")),
    min_size=1,
    max_size=40,
    unique=True,
)
