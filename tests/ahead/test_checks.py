"""Each check passes on our programs and fails on one that breaks it.

Eight devices live in a process of their own, since JAX counts devices once.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FEW = tuple(f"{name}, few asked" for name in ("answers", "last_v_lora_b", "all_lora"))
OURS = ("embedding", "last_v_lora_b", "training", *FEW)


@pytest.fixture(scope="module")
def found():
    """What the compiler and the checks say of programs for eight devices."""
    done = subprocess.run(
        [sys.executable, HERE / "eight.py"],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
            "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": str(HERE.parents[1]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", OURS)
def test_our_programs_hold(found, name):
    assert found[name]["findings"] == []
    assert found[name]["exchanges"], "the check must see the weights that are gathered"


@pytest.mark.parametrize("name", OURS)
def test_formulas_of_arguments(found, name):
    """For one of eight devices; what the contract allows."""
    found = found[name]
    assert found["predicted arguments"] == pytest.approx(found["arguments"], rel=0.02)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too small a memory", "GiB a device are more than 90%"),
        ("little may be exchanged", "at most 100 may be exchanged"),
        ("copied batch", "f32[24,48,40] has the 24 examples of all 8 devices"),
        ("callback", "callback"),
        ("wide", "f64["),
    ],
)
def test_a_program_that_breaks_a_rule_is_found(found, name, message):
    assert any(message in finding for finding in found[name]["findings"])
