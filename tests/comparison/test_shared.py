"""Which pass belongs to which seed, and what names a trial's rows and rewards."""

from dataclasses import replace
from pathlib import Path

import pytest

from goracs_jax.comparison.cells import _of_rows
from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.inputs import CompareInputs
from goracs_jax.comparison.shared import seed_of
from goracs_jax.runs.opened import Pool
from goracs_jax.settings import Compare

PATHS = dict.fromkeys(("train", "valid", "test", "model", "out"), Path("x"))
PLAIN = Compare(**PATHS, methods=("random",), budgets=(4,), seed=5)
WARMED = replace(PLAIN, adapter_from_pool=0.1)


def inputs_of(sha256):
    """Inputs of which nothing but the training examples is read."""
    others = dict.fromkeys(CompareInputs._fields[1:])
    return CompareInputs(Pool([], sha256, Path("x")), **others)


INPUTS = inputs_of("all of it")


@pytest.mark.parametrize(
    ("arm", "name", "fresh", "warmed"),
    [
        ("goracs", "text", None, None),
        ("goracs@states", "states", None, None),
        ("goracs:by-label@text@probe", "prompts", None, None),
        ("goracs", "norms", 6, None),
        ("error", "norms", None, None),  # which a fresh adapter does not change
        ("goracs@gradient", "gradient", 6, None),
        ("goracs@subspace", "subspace", 6, 6),  # of the target that the seed draws
        ("loss-drop", "loss-drop", 6, 6),
    ],
)
def test_the_seed_of_a_pass(arm, name, fresh, warmed):
    trial = Trial(arm, None if arm == "error" else 0.3, 4, 6)
    assert name in trial.passes
    assert seed_of(PLAIN, trial, name) == fresh
    assert seed_of(WARMED, trial, name) == warmed
    assert seed_of(replace(PLAIN, adapter=Path("a")), trial, name) == warmed
    # The first seed's pass goes over all examples, unless it draws some of them.
    first = trial._replace(seed=5)
    alone = name in ("subspace", "loss-drop")
    assert seed_of(PLAIN, first, name) == (5 if alone else None)
    drawn = seed_of(replace(PLAIN, draw_train=9), first, name)
    assert drawn == (None if fresh is None else 5)


def test_cells_of_before_keep_their_names():
    assert _of_rows(PLAIN, INPUTS, Trial("random", None, 4, 6)) == {}
    assert _of_rows(PLAIN, INPUTS, Trial("goracs", 0.0, 4, 6)) == {}
    found = _of_rows(PLAIN, INPUTS, Trial("goracs", 0.3, 4, 6))
    assert found == {"gradients_seed": 6}
    # An adapter that nothing reads names nothing.
    assert _of_rows(WARMED, INPUTS, Trial("goracs", 0.0, 4, 6)) == {}


@pytest.mark.parametrize(
    "arm", ["goracs@gradient", "goracs@subspace", "random@gradient", "loss-drop", "rds"]
)
def test_whatever_changes_an_adapter_names_another_cell(arm):
    trial = Trial(arm, 0.0, 4, 6)
    found = [
        _of_rows(settings, inputs, trial)
        for settings, inputs in (
            (WARMED, INPUTS),
            (replace(WARMED, seed=4), INPUTS),
            (replace(WARMED, adapter_from_pool=0.2), INPUTS),
            (replace(WARMED, preconditioner="adam"), INPUTS),
            (WARMED, inputs_of("more")),
            (PLAIN, INPUTS),
        )
    ]
    assert len({str(sorted(each.items())) for each in found}) == 6
