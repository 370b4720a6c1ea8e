"""A tiny model, two pools and three arrays, as the working folder of a test."""

import shutil
import time

import numpy as np
import pytest
import tiny
from commands import M, N, run
from comparing import COMPARE, write_files

from goracs_jax.selection.baselines.random import selection_of
from goracs_jax.selection.method import METHODS, FunctionMethod, register


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory):
    """A tiny model and two pools; nobody may write to them."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.write_llm(folder / "llm")
    tiny.write_pool(folder / "train.jsonl", N, seed=0)
    tiny.write_pool(folder / "valid.jsonl", M, seed=1)
    return folder


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """A comparison that is done; nobody may write to its files."""
    folder = tmp_path_factory.mktemp("compare")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(COMPARE, None) == 0
    return folder


@pytest.fixture(scope="module")
def shared(tiny_files):
    """What the tests of a module get copies of."""
    return tiny_files


@pytest.fixture
def files(shared, tmp_path, monkeypatch):
    """Their copies, as the working folder of one test."""
    for item in shared.iterdir():
        copy = shutil.copytree if item.is_dir() else shutil.copy
        copy(item, tmp_path / item.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def arrays(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 4)), rng.normal(size=(M, 4))
    g = rng.gamma(3.0, size=N)
    for name, array in {"x": x, "y": y, "g": g}.items():
        np.save(tmp_path / f"{name}.npy", array.astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def choose(problem, budget, *, key):
    """The rows of the largest rewards: lambda weighs whether there are any."""
    rows = np.argsort(-np.asarray(problem.cost.reward), kind="stable")[:budget]
    return selection_of(problem, np.sort(rows), time.perf_counter())


@pytest.fixture
def rewarded():
    """A method of the user's: ten lines, and nothing else is edited."""
    about = "The rows of the largest rewards."
    yield register(
        FunctionMethod(name="rewarded", choose=choose, about=about, weighed=True)
    )
    del METHODS["rewarded"]
