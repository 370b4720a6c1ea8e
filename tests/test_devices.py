"""Many devices choose what one chooses, and exchange nothing of the size of rows.

JAX counts its devices once per process, so the eight live in a process of their own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import on_devices
import pytest

NAMES = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
COLLECTIVE = rf"= (.*?) (?:{NAMES})(?:-start)?\("


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Arrays and programs of eight devices, and of the last four of them."""
    out = tmp_path_factory.mktemp("devices") / "found.npz"
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, tests / "on_devices.py", out],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
            "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = dict(np.load(out))
    assert found["devices"] == 8
    return found


@pytest.fixture(scope="module")
def one():
    """Arrays of one device, in this process."""
    return on_devices.arrays(jax.devices()[:1])


@pytest.mark.parametrize("devices", ["eight", "four"])
def test_many_devices_choose_like_one(found, one, devices):
    many = {name: found[f"{devices} {name}"] for name in one}
    np.testing.assert_array_equal(many["indices"], one["indices"])
    np.testing.assert_array_equal(many["others"], one["others"])
    for name in ("rows", "cheap rows"):
        np.testing.assert_array_equal(many[name], one["rows"])
    numbers = set(one) - {"indices", "others", "rows", "cheap rows"}
    assert len(numbers) == 8
    for name in numbers:
        # The same float32 operations, in matrix products of other shapes.
        np.testing.assert_allclose(many[name], one[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", on_devices.PROGRAMS)
def test_programs_are_compiled_before_there_is_a_cost(found, name):
    """For the mesh that is given: four devices, which are not all that there are."""
    text = str(found[f"{name} text"])
    assert "num_partitions=4" in text
    if name != "map":
        assert re.search(COLLECTIVE, text), "all devices have the result"
    parts = [key for key in found if key.startswith(f"{name} ahead")]
    assert parts
    for part in parts:
        np.testing.assert_array_equal(found[part], found[part.replace("ahead", "now")])


@pytest.mark.parametrize("name", [*on_devices.STAYING, "rows_in_place"])
def test_rows_and_blocks_stay_on_their_device(found, name):
    shapes = [
        np.prod([int(size) for size in shape.split(",") if size], initial=1)
        for result in re.findall(COLLECTIVE, str(found[f"exchanges of {name}"]))
        for shape in re.findall(r"\[([\d,]*)\]", result)
    ]
    if name in ("materialize", "sweeps"):
        assert not shapes
        return
    assert shapes, "the check must see the exchange of results"
    # A number for each of 8 x 51 rows, or 16 candidates for each of 24 points. The 51
    # rows of a device are 816 numbers, and its part of C is 1,224.
    assert max(shapes) <= 408
