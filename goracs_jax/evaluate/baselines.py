"""What is reached without a language model: the numbers beside every comparison.

A fine-tuned model that is no better than these has learnt to count, or which titles are
popular. They read what `goracs prepare` writes: `interactions` and `mean_rating` in
items.jsonl, over all training interactions; `liked` and `history` in the examples. A
baseline whose keys are missing is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.evaluate.calibration import cross_fitted, log_likelihoods
from goracs_jax.evaluate.catalogue import Catalogue
from goracs_jax.evaluate.metrics import Units, auc_values, tied_ranking_values
from goracs_jax.evaluate.outcomes import CALIBRATED, LIKELY

#: Neighbours of each item of a history that ItemKNN counts.
NEIGHBOURS = 20

Records = Sequence[Mapping[str, Any]]
#: Metrics as one value per test example, by baseline.
Baselines = dict[str, dict[str, np.ndarray]]


def ctr_baselines(
    test: Records,
    positive: Bool[np.ndarray, " examples"],
    known: Catalogue | None,
    units: Units,
) -> Baselines:
    """Judge scores that need no model, on click prediction.

    They are the number of liked titles in the prompt, the item's number of training
    interactions, its mean rating there (of an item without ratings: the mean over all
    items), and the first with the last in a logistic regression. Log likelihoods are
    calibrated: what one half of the users fits is judged on the other half.

    Args:
        test: Records of the test examples.
        positive: Whether each output is Yes.
        known: The items, where there is a file of them.
        units: The user of each example.

    Returns:
        AUC and calibrated log likelihood of each baseline.

    >>> test = [{"liked": [True, True]}, {"liked": [False]}]
    >>> yes, units = np.array([True, False]), np.array([0, 1])
    >>> found = ctr_baselines(test, yes, None, units)
    >>> list(found), found["liked titles"]["AUC"].mean().item()
    (['liked titles'], 1.0)
    """
    scores: dict[str, np.ndarray] = {}
    if _have(test, "liked"):
        scores["liked titles"] = np.array([sum(r["liked"]) for r in test], np.float64)
    rows = known and _targets(test, known)
    if known and rows is not None:
        if known.interactions is not None:
            scores["popularity"] = known.interactions[rows].astype(np.float64)
        if known.mean_rating is not None:
            usual = float(np.nanmean(known.mean_rating))
            rating = np.nan_to_num(known.mean_rating, nan=usual)[rows]
            scores["mean rating"] = rating
    found = {}
    for name, score in scores.items():
        margins, _ = cross_fitted(score, positive, units)
        found[name] = _judged(score, margins, positive)
    if {"liked titles", "mean rating"} <= scores.keys():
        both = np.stack([scores["liked titles"], scores["mean rating"]], axis=1)
        margins = _regressed(both, positive, units)
        if margins is not None:
            found["liked titles, mean rating"] = _judged(margins, margins, positive)
    return found


def seqrec_baselines(train: Records, test: Records, known: Catalogue) -> Baselines:
    """Rank the candidates of next-item prediction by scores that need no model.

    Popularity ranks by the number of training interactions, and gives a title the
    probability (interactions + 1) / (all interactions + titles). ItemKNN ranks by the
    sum, over the items of the history, of their cosine similarity to the candidate, if
    it is among their 20 nearest (Deshpande and Karypis, ACM TOIS 2004); two items are
    similar if the same users of the training examples have them.

    Args:
        train: Records of the training examples.
        test: Records of the test examples, with `target` and `negatives`.
        known: The items.

    Returns:
        HR and NDCG of each baseline, expected over the order of equal scores, and the
        log likelihood of popularity.

    >>> known = Catalogue({"a": 0, "b": 1}, np.arange(2), ["A", "B"], np.array([3, 1]))
    >>> test = [{"target": "a", "negatives": ["b"]}]
    >>> found = seqrec_baselines([], test, known)["popularity"]
    >>> found["HR@1"].item(), found["log likelihood"].round(3).item()
    (1.0, -0.405)
    """
    rows = [
        [known.row_of[str(item)] for item in (record["target"], *record["negatives"])]
        for record in test
    ]
    titles = [known.title_of[row] for row in rows]
    found: Baselines = {}
    if known.interactions is not None:
        times = np.bincount(known.title_of, known.interactions, len(known.titles))
        found["popularity"] = _ranked([times[row] for row in titles], titles)
        chance = (times + 1) / (times.sum() + len(times))
        found["popularity"][LIKELY] = np.log([chance[row[0]] for row in titles])
    if train and _have([*train, *test], "history") and _have(test, "negatives"):
        similar = _similarities(train, known)
        scores = [
            np.asarray(similar[_rows(record["history"], known)][:, row].sum(axis=0))
            for record, row in zip(test, rows, strict=True)
        ]
        found["ItemKNN"] = _ranked([score.ravel() for score in scores], titles)
    return found


def _have(records: Records, key: str) -> bool:
    return all(isinstance(record.get(key), list) for record in records)


def _targets(test: Records, known: Catalogue) -> Int[np.ndarray, " examples"] | None:
    """Return the row of each target; None where one is not among the items."""
    names = [str(record.get("target")) for record in test]
    if not all(name in known.row_of for name in names):
        return None
    return np.array([known.row_of[name] for name in names])


def _judged(
    score: np.ndarray, margins: np.ndarray, positive: np.ndarray
) -> dict[str, np.ndarray]:
    likely = log_likelihoods(margins, positive)
    return {"AUC": auc_values(positive, score), CALIBRATED: likely}


def _regressed(
    features: Float[np.ndarray, "examples features"],
    positive: Bool[np.ndarray, " examples"],
    units: Units,
) -> Float[np.ndarray, " examples"] | None:
    """Return the margins of a logistic regression on the other half of the users.

    None where a half has one answer alone, as among very few examples.
    """
    from sklearn.linear_model import LogisticRegression  # imported here: takes seconds

    halves = (units % 2 == 0, units % 2 == 1)
    if any(len(np.unique(positive[half])) < 2 for half in halves):
        return None
    margins = np.empty(len(features))
    for half in halves:
        model = LogisticRegression().fit(features[~half], positive[~half])
        margins[half] = model.decision_function(features[half])
    return margins


def _ranked(
    scores: Sequence[Float[np.ndarray, " candidates"]],
    titles: Sequence[Int[np.ndarray, " candidates"]],
) -> dict[str, np.ndarray]:
    """Return HR and NDCG of each example; the first candidate is the target."""
    values = [
        # The same title twice is no rival.
        tied_ranking_values(float(score[0]), score[title != title[0]])
        for score, title in zip(scores, titles, strict=True)
    ]
    return {k: np.array([each[k] for each in values]) for k in values[0]}


def _rows(items: Sequence[Any], known: Catalogue) -> list[int]:
    return [known.row_of[str(item)] for item in items if str(item) in known.row_of]


def _similarities(train: Records, known: Catalogue) -> Any:
    """Return the cosine similarity of each item to its nearest ones, sparse."""
    from scipy.sparse import csr_array
    from sklearn.neighbors import NearestNeighbors  # imported here: it takes seconds

    users: dict[str, int] = {}
    pairs = {
        (row, users.setdefault(str(record["user"]), len(users)))
        for record in train
        for row in _rows([*record["history"], record["target"]], known)
    }
    items, owners = np.array(sorted(pairs)).T
    shape = (len(known.row_of), len(users))
    matrix = csr_array((np.ones(len(items)), (items, owners)), shape)
    count = min(NEIGHBOURS, shape[0] - 1)
    search = NearestNeighbors(n_neighbors=count, metric="cosine").fit(matrix)
    near = search.kneighbors_graph(mode="distance")  # of the items, without themselves
    near.data = 1 - near.data
    return csr_array(near)
