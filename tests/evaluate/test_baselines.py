"""Baselines without a model, against loops."""

from math import log, log2, sqrt

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from goracs_jax.evaluate import baselines
from goracs_jax.evaluate.baselines import ctr_baselines, seqrec_baselines
from goracs_jax.evaluate.calibration import cross_fitted, log_likelihoods
from goracs_jax.evaluate.catalogue import Catalogue

ITEMS = 12


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def known(rng):
    """Twelve items, of which the last two share a title; item 3 has no rating."""
    titles = [f"T{i:02}" for i in range(ITEMS - 1)]
    title_of = np.minimum(np.arange(ITEMS), ITEMS - 2)
    ratings = rng.uniform(1, 5, ITEMS)
    ratings[3] = np.nan
    row_of = {str(100 + i): i for i in range(ITEMS)}
    return Catalogue(row_of, title_of, titles, rng.integers(0, 9, ITEMS), ratings)


def test_ctr_baselines_rank_by_what_they_say(rng, known):
    rows = rng.integers(0, ITEMS, 60)
    test = [
        {"target": 100 + int(row), "liked": (rng.random(5) < 0.5).tolist()}
        for row in rows
    ]
    count = np.array([sum(record["liked"]) for record in test], float)
    rating = np.where(rows == 3, np.nanmean(known.mean_rating), known.mean_rating[rows])
    yes, users = rng.random(60) < 0.2 * count, np.arange(60) // 2
    found = ctr_baselines(test, yes, known, users)
    for name, score in [
        ("liked titles", count),
        ("popularity", known.interactions[rows].astype(float)),
        ("mean rating", rating),
    ]:
        expected = roc_auc_score(yes, score)
        assert found[name]["AUC"].mean() == pytest.approx(expected), name
        margins, _ = cross_fitted(score, yes, users)
        likely = log_likelihoods(margins, yes)
        np.testing.assert_allclose(found[name]["calibrated log likelihood"], likely)
    both = found["liked titles, mean rating"]
    assert both["AUC"].mean() > found["mean rating"]["AUC"].mean()
    assert len(found) == 4


def test_what_files_do_not_carry_is_left_out(rng, known):
    test = [{"target": "100"}, {"target": "101"}, {"target": "102"}, {"target": "103"}]
    yes, users = np.array([True, False, True, False]), np.arange(4)
    assert list(ctr_baselines(test, yes, None, users)) == []
    bare = known._replace(interactions=None)
    assert list(ctr_baselines(test, yes, bare, users)) == ["mean rating"]
    stranger = [*test[:3], {"target": "999"}]
    assert list(ctr_baselines(stranger, yes, known, users)) == []
    ranked = [record | {"negatives": ["105"]} for record in test]
    assert list(seqrec_baselines(ranked, ranked, known)) == ["popularity"]
    assert list(seqrec_baselines(ranked, ranked, bare)) == []


def ndcg(score, titles):
    """NDCG@10 of the first title, averaged over the orders of equal scores."""
    rivals = [s for s, t in zip(score, titles, strict=True) if t != titles[0]]
    above = sum(s > score[0] + 1e-12 for s in rivals)
    ties = sum(abs(s - score[0]) <= 1e-12 for s in rivals)
    places = range(above, above + ties + 1)
    return sum(1 / log2(p + 2) for p in places if p < 10) / (ties + 1)


def test_seqrec_baselines_are_those_of_loops(rng, known, monkeypatch):
    monkeypatch.setattr(baselines, "NEIGHBOURS", 3)
    train, test = [], []
    for user in range(30):
        items = [int(i) for i in rng.permutation(ITEMS)]
        ids = [str(100 + i) for i in items]
        train.append({"user": user, "history": ids[:3], "target": ids[3]})
        asked = {"user": user, "history": ids[1:4], "target": ids[4]}
        test.append(asked | {"negatives": ids[5:]})
    found = seqrec_baselines(train, test, known)

    had = [set() for _ in range(ITEMS)]
    for record in train:
        for item in [*record["history"], record["target"]]:
            had[int(item) - 100].add(record["user"])

    def cosine(i, j):
        return len(had[i] & had[j]) / sqrt(len(had[i]) * len(had[j]))

    near = {}
    for i in range(ITEMS):
        others = sorted(
            (j for j in range(ITEMS) if j != i), key=lambda j: -cosine(i, j)
        )
        third, fourth = cosine(i, others[2]), cosine(i, others[3])
        near[i] = None if third - fourth < 1e-9 else others[:3]
    names, total = known.title_of, known.interactions.sum()
    times = [known.interactions[names == t].sum() for t in range(ITEMS - 1)]
    compared = 0
    for k, record in enumerate(test):
        rows = [int(i) - 100 for i in (record["target"], *record["negatives"])]
        titles = [names[row] for row in rows]
        popular = [times[t] for t in titles]
        got = found["popularity"]["NDCG@10"][k]
        assert got == pytest.approx(ndcg(popular, titles))
        chance = (times[titles[0]] + 1) / (total + ITEMS - 1)
        assert found["popularity"]["log likelihood"][k] == pytest.approx(log(chance))
        past = [int(i) - 100 for i in record["history"]]
        if any(near[h] is None for h in past):
            continue  # equally near items: either may count
        score = [sum(cosine(h, i) for h in past if i in near[h]) for i in rows]
        got = found["ItemKNN"]["NDCG@10"][k]
        assert got == pytest.approx(ndcg(score, titles))
        compared += 1
    assert compared > 5
