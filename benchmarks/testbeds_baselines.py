"""What trivial models know of a testbed: counts and words, no language model."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler
from testbeds_pools import Drawn, Universe

from goracs_jax.evaluate.metrics import auc_values, tied_ranking_values

Records = Sequence[dict[str, Any]]


def baselines(universe: Universe, drawn: Drawn) -> dict[str, float]:
    """Judge what the pool of a seed tells without a language model.

    Returns:
        For click prediction the AUC of the number of liked movies in the prompt, of how
        often the pool names the movie, of the share of Yes among its rows that ask for
        the movie (one half if there are none), and of logistic regressions on the
        pool's answers, right and wrong: on the year of the movie, on the words of the
        line that describes it, and on these words in the planted rows alone. For the
        next movie the NDCG@10 of how often it is the answer in the pool, expected over
        the order of equal counts.
    """
    pool = [universe.pool[row] for row in drawn.pool]
    judge = [universe.held[row] for row in drawn.judge]
    if "negatives" in judge[0]:
        return {"popularity": _by_popularity(pool, judge)}
    yes = np.array([record["output"] == "Yes" for record in judge])
    named = Counter(item for r in pool for item in (r["target"], *r["history"]))
    answers = defaultdict(list)
    asked = [record for record in pool if record["output"] in ("Yes", "No")]
    for record in asked:
        answers[record["target"]].append(record["output"] == "Yes")
    planted = [universe.pool[row] for row in drawn.pool if universe.planted[row]]
    scores = {
        "liked movies": [sum(record["liked"]) for record in judge],
        "popularity": [named[record["target"]] for record in judge],
        "mean rating": [np.mean(answers[r["target"]] or [0.5]) for r in judge],
        "year": _fitted(FunctionTransformer(_years), asked, judge),
        "words": _fitted(CountVectorizer(), asked, judge),
        "words, planted": _fitted(CountVectorizer(), planted, judge),
    }
    return {
        name: float(auc_values(yes, np.array(score, float)).mean())
        for name, score in scores.items()
    }


def _fitted(
    features: CountVectorizer | FunctionTransformer, train: Records, judge: Records
) -> Float[np.ndarray, " judge"]:
    """Fit a logistic regression on some records, and return its margins of others."""
    described = lambda records: [r["input"].rpartition("Asked: ")[2] for r in records]
    model = make_pipeline(features, MaxAbsScaler(), LogisticRegression())
    model.fit(described(train), [record["output"] == "Yes" for record in train])
    return model.decision_function(described(judge))


def _years(lines: Sequence[str]) -> Float[np.ndarray, "records 1"]:
    found = [re.findall(r"\((\d{4}), ", line)[-1] for line in lines]
    return np.array(found, float)[:, None] - 1900


def _by_popularity(pool: Records, judge: Records) -> float:
    times = Counter(record["target"] for record in pool)
    values = []
    for record in judge:
        others = np.array([times[item] for item in record["negatives"]])
        mine = float(times[record["target"]])
        values.append(tied_ranking_values(mine, others)["NDCG@10"])
    return float(np.mean(values))
