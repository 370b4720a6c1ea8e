"""Instances of many shapes on which suite.py runs every method."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import goracs

from goracs_jax.data.demo import draw_records, fetch, movielens
from goracs_jax.data.examples import write_jsonl


class Instance(NamedTuple):
    """The input of a selection: embeddings, gradient norms and the budget."""

    train: np.ndarray
    valid: np.ndarray
    grad_norm: np.ndarray
    budget: int


def clusters(rng: np.random.Generator, sizes: tuple[int, int], k: int) -> list:
    """Draw points around k centres, and further points around half of the centres."""
    centres = 2 * rng.normal(size=(k, 64))
    halves = (k, max(1, k // 2))
    return [
        centres[rng.integers(of, size=size)] + rng.normal(size=(size, 64))
        for size, of in zip(sizes, halves, strict=True)
    ]


def synthetic(n_train: int, n_valid: int, budget: int, k: int = 20) -> Instance:
    """Draw clusters, and gradient norms from a gamma distribution."""
    rng = np.random.default_rng(0)
    x, y = clusters(rng, (n_train, n_valid), k)
    return Instance(x, y, rng.gamma(4.0, size=n_train), budget)


def duplicates() -> Instance:
    """Repeat each of a hundred distinct training rows ten times."""
    some = synthetic(1000, 200, 32)
    copy = np.arange(1000) % 100
    return some._replace(train=some.train[copy], grad_norm=some.grad_norm[copy])


def outliers() -> Instance:
    """Move 5 % of the training and 2 % of the validation rows to one far cluster."""
    some = synthetic(1000, 200, 32)
    some.train[:50] += 40.0
    some.valid[:4] += 40.0
    return some


def prompts(n_train: int, n_valid: int, budget: int, by: str) -> Instance:
    """Embed MovieLens-100K prompts with MiniLM or SmolLM2; draw gradient norms."""
    files = fetch()
    log, split = movielens(files)
    rng = np.random.default_rng(0)
    model = ["--encoder", files.encoder] if by == "minilm" else ["--model", files.model]
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for rows, size in ((split.train, n_train), (split.valid, n_valid)):
            data, out = (Path(folder) / f"{size}.{end}" for end in ("jsonl", "npy"))
            write_jsonl(data, draw_records(log, rows, size, rng))
            goracs("embed", *model, "--data", data, "--out", out)
            made.append(np.load(out))
    return Instance(made[0], made[1], rng.gamma(4.0, size=n_train), budget)


INSTANCES: dict[str, Callable[[], Instance]] = {
    "n > M": lambda: synthetic(600, 40, 64),
    "n = M": lambda: synthetic(600, 64, 64),
    "n = 1": lambda: synthetic(600, 200, 1),
    "N = n": lambda: synthetic(64, 200, 64),
    "few clusters": lambda: synthetic(1000, 200, 32, k=3),
    "duplicates": duplicates,
    "clustered outliers": outliers,
    "n does not divide M": lambda: synthetic(1000, 203, 30),
    "MovieLens, MiniLM": lambda: prompts(800, 200, 48, "minilm"),
    "MovieLens, SmolLM2": lambda: prompts(400, 100, 32, "smollm2"),
}
