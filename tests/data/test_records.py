import numpy as np
import pytest
from interactions import log_of

from goracs_jax.data.records import Wording, item_records, records, with_negatives
from goracs_jax.llm.prompts import Template

# Ratings go through 1 to 5; u has a1 c3 d4 e5, v has b2 a1.
PAIRS = [("u", "a"), ("v", "b"), ("u", "c"), ("u", "d"), ("u", "e"), ("v", "a")]


@pytest.fixture
def log():
    return log_of(PAIRS)


def test_seqrec(log):
    wording = Wording(history=2, noun="game")
    first, second = records(log, np.array([4, 5]), wording)
    assert first["input"] == '"C", "D"'
    assert first["output"] == '"E"'
    assert "game" in first["instruction"]
    assert (first["user"], first["target"], first["timestamp"]) == ("u", "e", 4.0)
    assert second["input"] == '"B"'
    assert set(second) == {
        *("instruction", "input", "output"),
        *("user", "target", "history", "timestamp"),
    }
    assert (first["history"], second["history"]) == (["c", "d"], ["b"])


@pytest.mark.parametrize(
    ("like_above", "liked", "disliked", "answer"),
    [
        (3.0, '"D"', '"A", "C"', "Yes"),
        (2.9, '"C", "D"', '"A"', "Yes"),
        (5.0, "none", '"A", "C", "D"', "No"),
    ],
)
def test_ctr(log, like_above, liked, disliked, answer):
    wording = Wording(task="ctr", like_above=like_above)
    (record,) = records(log, np.array([4]), wording)
    assert record["input"] == f'Liked: {liked}\nDisliked: {disliked}\nOne more: "E"'
    assert (record["output"], record["rating"]) == (answer, 5.0)
    rated = dict(zip(record["history"], record["liked"], strict=True))
    assert rated == {"a": False, "c": '"C"' in liked, "d": '"D"' in liked}


def test_own_template(log):
    template = Template(
        instruction="{history}?", input="", output="{target}", quote="|"
    )
    (record,) = records(log, np.array([3]), Wording(template=template))
    assert (record["instruction"], record["output"]) == ("|A|, |C|?", "|D|")


def test_negatives_are_ids_of_items(log):
    plain = [*records(log, np.array([4, 5]), Wording())]
    drawn = [np.array([1, 2]), np.array([2, 4])]
    first, second = with_negatives(log, plain, drawn)
    assert first == plain[0] | {"negatives": ["b", "c"]}
    assert second == plain[1] | {"negatives": ["c", "e"]}


def test_items_in_the_order_of_their_ids(log):
    # The first four interactions: u a1, v b2, u c3, u d4.
    found = [*item_records(log, np.arange(4))]
    assert found[:2] == [
        {"item_id": "a", "title": "A", "interactions": 1, "mean_rating": 1.0},
        {"item_id": "b", "title": "B", "interactions": 1, "mean_rating": 2.0},
    ]
    assert found[4] == {"item_id": "e", "title": "E", "interactions": 0}
    # With the last one, v rates a with 1, too.
    twice, *_ = item_records(log, np.arange(6))
    assert (twice["interactions"], twice["mean_rating"]) == (2, 1.0)
