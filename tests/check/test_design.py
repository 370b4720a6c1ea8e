"""Which rows are drawn: shares of classes, tilts, ranges, and what other sizes keep."""

import numpy as np
import pytest

from goracs_jax.check.design import Sizes, design
from goracs_jax.selection.classes import class_budgets, make_classes

RNG = np.random.default_rng(0)
SIZES = Sizes(100, 50, 3, 4, 5, 2, 20)
NEAR = {"a": RNG.normal(size=100), "b": RNG.normal(size=100)}
REWARDS = {"r": RNG.normal(size=100)}


def runs(sizes=SIZES, classes=None, budget=10, seed=0):
    found = design(NEAR, REWARDS, classes, sizes, budget, seed=seed)
    return [*found.first, *found.rest]


def test_seeds_differ_and_rows_do_not_repeat():
    found = runs()
    assert len({run.seed for run in found}) == len(found) == SIZES.trainings(2)
    assert all(len(set(run.rows.tolist())) == len(run.rows) == 10 for run in found)


def test_repeats_and_second_seeds_have_the_same_rows():
    found = runs()
    of = lambda part: [run for run in found if run.part == part]
    assert len({tuple(run.rows.tolist()) for run in of("repeats")}) == 1
    subsets = {run.place: run for run in of("subsets")}
    for run in of("again"):
        assert run.rows.tolist() == subsets[run.place].rows.tolist()
        assert run.seed != subsets[run.place].seed


def test_a_tilt_moves_the_mean_of_its_own_score():
    scores = {**NEAR, **REWARDS}
    many = runs(SIZES._replace(subsets=200))
    tilted = [run for run in many if run.part == "subsets" and run.by]
    assert {run.by for run in tilted} == set(scores)
    for name, score in scores.items():
        mine = [run for run in tilted if run.by == name]
        means = [score[run.rows].mean() for run in mine]
        assert np.corrcoef([run.tilt for run in mine], means)[0, 1] > 0.8
    plain = [r for r in many if r.part == "subsets" and r.by is None]
    assert len(plain) == len(tilted)


def test_quantiles_are_ranges_of_distance():
    for run in (run for run in runs() if run.part == "quantiles"):
        far = np.argsort(np.argsort(-NEAR[str(run.by)]))
        assert set(far[run.rows] * 5 // 100) == {run.place}


def test_classes_get_their_shares():
    labels = RNG.integers(0, 3, 100), RNG.integers(0, 3, 30)
    classes = make_classes(*labels, (100, 30))
    wanted = class_budgets(classes, 6)
    for run in runs(classes=classes, budget=6):
        assert np.bincount(labels[0][run.rows], minlength=3).tolist() == wanted.tolist()


def test_other_sizes_keep_what_they_have_in_common():
    key = lambda run: (run.part, run.place, run.by, run.seed, tuple(run.rows.tolist()))
    few = {key(run) for run in runs()}
    many = {key(run) for run in runs(SIZES._replace(repeats=6, subsets=30, pairs=6))}
    assert few < many
    assert not few & {key(run) for run in runs(seed=1)}


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_narrow_range_is_taken_whole(share):
    budget = int(40 * share)
    sizes = [len(run.rows) for run in runs(budget=budget) if run.part == "quantiles"]
    assert sizes == [20] * len(sizes)
