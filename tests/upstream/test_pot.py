"""POT (imported as `ot`), seen in 0.9.7.post1."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # see the last test
    import ot


def test_costs_below_minus_two_are_called_infeasible():
    """POT 0.9.7.post1: `ot.emd` answers costs below about -2 with a plan of zeros.

    It warns and does not raise. A shift of all costs changes no optimal plan, so
    `exact` (goracs_jax/transport) shifts them to be positive.
    """
    mass = np.full(2, 0.5)
    cost = np.array([[0.0, 1.0], [1.0, 0.0]])
    plan, log = ot.emd(mass, mass, cost, log=True)
    np.testing.assert_allclose(plan, np.eye(2) / 2)
    with pytest.warns(UserWarning, match="Problem infeasible"):
        plan, log = ot.emd(mass, mass, cost - 10.0, log=True)
    gone = "POT solves negative costs: the shift in transport.exact can go"
    assert not plan.any(), gone
    assert log["result_code"] != 1, gone


def test_a_stopped_simplex_returns_too_little_mass():
    """POT 0.9.7.post1: `numItermax` stops `ot.emd` before all mass has moved.

    It warns, does not raise, and returns a plan that misses its marginals. So `exact`
    (goracs_jax/transport) sets no limit that counts and reads `result_code`.
    """
    mass = np.full(40, 1 / 40)
    cost = np.random.default_rng(0).random((40, 40))
    with pytest.warns(UserWarning, match="numItermax reached before optimality"):
        plan, log = ot.emd(mass, mass, cost, log=True, numItermax=1)
    gone = (
        "POT raises or ends with a whole plan: transport.exact need not read the code"
    )
    assert plan.sum() < 0.99, gone
    assert log["result_code"] != 1, gone


def test_a_docstring_has_an_invalid_escape():
    r"""POT 0.9.7.post1: ot/datasets.py has "\d" in a string that is not raw.

    Python warns when it compiles the file for the first time, so pyproject.toml
    ignores two warnings of "invalid escape sequence" (Python 3.11, and later).
    """
    home = Path(str(importlib.util.find_spec("ot").origin)).parent
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compile((home / "datasets.py").read_text(), "datasets.py", "exec")
    assert any("invalid escape sequence" in str(w.message) for w in caught), (
        "POT compiles without warnings: two lines of filterwarnings can go"
    )
