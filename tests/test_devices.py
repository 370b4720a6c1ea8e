"""Eight devices choose what one chooses, and exchange nothing of the size of rows.

Devices are counted once a process, so the eight live in a process of their own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# 8 does not divide 403: the last device holds repeated rows. Its 51 rows of C or of the
# embeddings are more numbers than all candidates.
SIZES = {"n_train": 403, "n_valid": 24, "budget": 6, "k": 4}
SCRIPT = """
import sys
import jax
import numpy as np
from instances import instance
from goracs_jax.cost import make_cost, nearest_distances
from goracs_jax import goracs
from goracs_jax.selection.bound import slack_below
from goracs_jax.selection.search import group_exchange

n_train, n_valid, budget, k = {n_train}, {n_valid}, {budget}, {k}
case = instance(n_train, n_valid, seed=3, dim=16)
cost = case.cost
chosen = goracs(
    case.x, case.y, case.g, lambda_=0.3, budget=budget, key=jax.random.key(0)
)
plan = np.zeros((budget, n_valid))
plan[np.arange(n_valid) % budget, np.arange(n_valid)] = 1 / n_valid
value, rows = group_exchange.slot_candidates(cost, plan, k)
np.savez(
    sys.argv[1], devices=jax.device_count(), indices=chosen.indices,
    bound=chosen.lower_bound, value=value, rows=rows, largest=cost.distance_max,
    nearest=nearest_distances(cost), slack=slack_below(cost, np.zeros(n_valid, "f4")),
)
groups = group_exchange.largest_entries(plan)
program = group_exchange._least.lower(
    cost, np.arange(n_valid), groups.data.astype("f4"), groups.indices, groups.indptr, k
)
print(program.compile().as_text())
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Arrays by the number of devices, and the program of eight."""
    folder, found, text = tmp_path_factory.mktemp("devices"), {}, ""
    tests = Path(__file__).parent
    for devices in (1, 8):
        flags = f"--xla_force_host_platform_device_count={devices}"
        path = os.pathsep.join([str(tests), str(tests.parent)])
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(**SIZES), folder / f"{devices}.npz"],
            env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found[devices], text = dict(np.load(folder / f"{devices}.npz")), done.stdout
        assert found[devices]["devices"] == devices
    return found, text


def test_eight_devices_choose_like_one(runs):
    one, eight = runs[0][1], runs[0][8]
    np.testing.assert_array_equal(eight["indices"], one["indices"])
    np.testing.assert_array_equal(eight["rows"], one["rows"])
    for name in ("bound", "value", "largest", "nearest", "slack"):
        # The same float32 operations, in matrix products of other shapes.
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-6, atol=1e-6)


def test_only_candidates_leave_a_device(runs):
    names = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    collective = rf"= (.*?) (?:{names})(?:-start)?\("
    shapes = [
        np.prod([int(size) for size in shape.split(",") if size], initial=1)
        for result in re.findall(collective, runs[1])
        for shape in re.findall(r"\[([\d,]*)\]", result)
    ]
    assert shapes, "the check must see the exchange of candidates"
    # n x k values and as many row numbers, from each of the eight.
    assert max(shapes) <= 8 * SIZES["budget"] * SIZES["k"]
