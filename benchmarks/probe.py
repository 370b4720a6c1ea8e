"""Are the embeddings blind to what matters? How well they tell Yes from No.

    python benchmarks/experiment.py ctr_long --budgets 64,256,1024 --finished --out DIR
    python benchmarks/probe.py DIR

Of the pool and the test examples in DIR, prompts are embedded as a selection does it,
by MiniLM and by the mean-pooled hidden states of SmolLM2-135M. Two readers learn the
answers of the pool: the nearest neighbours, which see distances alone, as the transport
does, and a logistic regression, which may weigh the directions. AUC is that of their
scores of the test examples, the same ones that fine-tuned models are judged by in
results/experiment_ctr_long.json. Writes results/probe.json.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import write
from experiment import goracs
from outcomes import records_of
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from goracs_jax.data.demo import fetch

NEIGHBOURS = (1, 10, 100)
SCORE = "roc_auc"  # also chooses the strength of the penalty, in the pool


def answers(path: Path) -> np.ndarray:
    """Whether the output of each example is Yes."""
    return np.array([record["output"] == "Yes" for record in records_of(path)])


def main() -> None:
    """Embed, read, score."""
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
