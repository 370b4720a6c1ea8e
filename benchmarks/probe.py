"""Do the embeddings know the answers? How well they tell Yes from No.

    python benchmarks/experiment.py ctr_long --budgets 64,256,1024 --finished --out DIR
    python benchmarks/probe.py DIR

The prompts of the pool and of the test examples in DIR are embedded as a selection
embeds them: with MiniLM, and with the mean-pooled hidden states of SmolLM2-135M. Two
kinds of classifiers learn the answers of the pool. Nearest neighbours see distances
alone, as optimal transport does; a logistic regression may weigh the directions. Their
AUC is taken on the same test examples as that of the fine-tuned models in
results/experiment_ctr_long.json. The script writes results/probe.json.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import goracs, write
from outcomes import records_of
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from goracs_jax.data.demo import fetch

NEIGHBOURS = (1, 10, 100)
SCORE = "roc_auc"  # chooses the strength of the penalty, too, on the pool alone


def answers(path: Path) -> np.ndarray:
    """Return whether the output of each example is Yes."""
    return np.array([record["output"] == "Yes" for record in records_of(path)])


def main() -> None:
    """Embed the prompts, train the classifiers, write their AUC."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("folder", type=Path, help="--out of experiment.py ctr_long")
    folder, files = parser.parse_args().folder, fetch()
    train, test = (folder / f"{name}.jsonl" for name in ("train", "test"))
    known, asked = answers(train), answers(test)
    readers: dict[str, Any] = {
        f"{k} nearest": KNeighborsClassifier(k, metric="euclidean") for k in NEIGHBOURS
    }
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    strengths = {"logisticregression__C": np.logspace(-5, 0, 6)}
    readers["logistic regression"] = GridSearchCV(logistic, strengths, scoring=SCORE)
    auc: dict[str, dict[str, float]] = {}
    for name, model in (
        ("MiniLM", ("--encoder", files.encoder)),
        ("SmolLM2-135M", ("--model", files.model)),
    ):
        vectors = []
        for data in (train, test):
            out = folder / "probe" / f"{name}_{data.stem}.npy"
            goracs("embed", "--data", data, *model, "--labels", "answer", "--out", out)
            vectors.append(np.load(out))
        auc[name] = {}
        for reader, learner in readers.items():
            learner.fit(vectors[0], known)
            score = learner.predict_proba(vectors[1])[:, 1]
            auc[name][reader] = float(roc_auc_score(asked, score))
            print(name, reader, auc[name][reader], flush=True)
    sizes = {"train": len(known), "test": len(asked)}
    print(write("probe", sizes | {"auc": auc}))


if __name__ == "__main__":
    main()
