"""The scripts of the testbeds as modules, and a testbed of made-up rows."""

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
PARTS = (
    "arms",
    "baselines",
    "cells",
    "features",
    "planted",
    "pools",
    "questions",
    "training",
)


@pytest.fixture(scope="module")
def beds():
    """All modules of the testbeds, by the end of their names; `run` is the script."""
    names = {part: f"testbeds_{part}" for part in PARTS} | {"run": "testbeds"}
    names["gap"] = "gap"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield SimpleNamespace(**{k: import_module(name) for k, name in names.items()})
    for name in (*names.values(), "common"):
        sys.modules.pop(name)


@pytest.fixture
def universe(beds):
    rng = np.random.default_rng(0)
    record = lambda i, users: {
        "instruction": "Like?",
        "input": f"movie {i}",
        "output": "No" if i % 3 else "Yes",
        "user": f"{users}{i // 4}",
    }
    planted = rng.random(1600) < 0.5
    pool = [record(i, "u") for i in range(1600)]
    return beds.pools.Universe(pool, planted, [record(i, "v") for i in range(1000)])
