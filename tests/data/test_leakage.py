import re

import numpy as np
import pytest

from goracs_jax.data import leakage
from goracs_jax.data.leakage import Copies
from goracs_jax.errors import InputError

WORDS = ["ash", "birch", "elm", "fir", "hazel", "larch", "oak", "pine", "yew"]


def drawn(size, length, seed):
    rng = np.random.default_rng(seed)
    line = lambda: " ".join(rng.choice(WORDS, length))
    return [
        ("Name the next tree.", line(), str(rng.choice(WORDS))) for _ in range(size)
    ]


def words(texts):
    return re.sub(r"\s+", " ", " ".join(texts)).strip().casefold().split(" ")


def triples(texts):
    found = words(texts)
    return {tuple(found[i : i + 3]) for i in range(max(1, len(found) - 2))}


@pytest.mark.parametrize(
    ("one", "other"),
    [("Caf\u00e9", "CAFE\u0301"), ("\ud55c\uad6d", "\u1112\u1161\u11ab\uad6d")],
)
def test_forms_of_unicode_are_one_text(one, other):
    assert Copies([("a", "", one)]).match(("a", "", other)) == 0
    assert Copies([("a", "", "10\u00b2")]).match(("a", "", "102")) is None


def test_equal_texts_are_those_of_a_double_loop():
    """In texts of so few words there are many copies; some differ in case and space."""
    rng = np.random.default_rng(0)
    known, others = drawn(40, 1, 0), drawn(60, 1, 1)
    others = [
        tuple(t.upper() if rng.random() < 0.5 else f"\t{t}\u00a0\n" for t in texts)
        for texts in others
    ]
    same = lambda a, b: all(words([x]) == words([y]) for x, y in zip(a, b, strict=True))
    expected = [
        next((i for i, b in enumerate(known) if same(a, b)), None) for a in others
    ]
    found = [Copies(known).match(texts) for texts in others]
    assert found == expected
    assert 0 < found.count(None) < len(found)


def test_texts_are_not_joined():
    """Words that move from one text to the next make another example."""
    assert Copies([("a b", "c", "d")]).match(("a", "b c", "d")) is None


@pytest.mark.parametrize("similarity", [0.5, 0.8])
def test_near_copies_are_those_of_a_double_loop(similarity):
    """One similar pair in a thousand may be missed; none is here."""
    rng = np.random.default_rng(2)
    known = drawn(30, 40, 3)
    others = []
    for prompt, line, answer in known * 4:
        changed = line.split()
        for place in rng.choice(len(changed), rng.integers(0, 9), replace=False):
            changed[place] = "alder"
        others.append((prompt, " ".join(changed), answer))
    others += drawn(30, 40, 4)
    share = lambda a, b: len(a & b) / len(a | b)
    sets = [triples(texts) for texts in known]
    expected = [max(share(triples(t), s) for s in sets) >= similarity for t in others]
    copies = Copies(known, similarity)
    assert [copies.match(texts) is not None for texts in others] == expected
    assert 0 < sum(expected) < len(expected)


@pytest.mark.parametrize(
    ("similarity", "message"),
    [(0.0, "above 0"), (1.1, "at most 1"), (float("nan"), "above 0"), (0.05, "0.1 or")],
)
def test_what_is_no_similarity(similarity, message):
    with pytest.raises(InputError, match=message):
        Copies([("a", "b", "c")], similarity)


def test_near_copies_need_the_package(monkeypatch):
    monkeypatch.setattr(leakage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'goracs_jax\[near\]', or leave"):
        Copies([("a", "b", "c")], 0.9)
