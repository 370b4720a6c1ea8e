"""The whole procedure where the answer is known: it finds it, and nothing else."""

import json

import numpy as np
import pytest
from simulated import SIZES, by_nothing, by_reward, by_space, check

from goracs_jax.check.examine import scores_of
from goracs_jax.check.inputs import Given
from goracs_jax.check.picture import check_figure
from goracs_jax.check.recommend import best_lambda, recommend
from goracs_jax.check.reliability import LEAST_ICC
from goracs_jax.check.written import record_of, table_of
from goracs_jax.selection.select import poo

GIVEN = Given(["--by-label"], ["--labels", "all"], ["--adapter-from-pool", "0.1"])


@pytest.mark.slow
def test_no_signal_gives_at_most_two_verdicts_of_twenty():
    """Each has one with probability 5 %: more than two of 20 in 7.5 % of all worlds."""
    found = [check(seed, by_nothing)[1].verdict for seed in range(20)]
    asked = [verdict for verdict in found if verdict is not None]
    assert len(asked) >= 19  # noise stops few: the ICC is 0.8
    assert sum(verdict[:2] != (None, None) for verdict in asked) <= 2


@pytest.mark.parametrize("classes", [False, True])
def test_the_space_that_decides_is_found(classes):
    _, found = check(1, by_space("two/whiten"), classes=classes)
    assert found.verdict is not None
    assert found.verdict.space == "two/whiten"
    assert found.verdict.reward is None
    assert found.agreements["spaces"]["two/whiten"].corrected.low > 0
    assert found.trends["two/whiten"].p < 0.05 < found.trends["one"].p
    advice = recommend(found, GIVEN)
    named = "--space two --transform whiten --reward none --lambda 0"
    assert advice.flags == f"{named} --labels all --by-label"


def test_the_reward_that_decides_is_found():
    _, found = check(2, by_reward("alignment"))
    assert found.verdict is not None
    assert (found.verdict.space, found.verdict.reward) == (None, "alignment")
    advice = recommend(found, GIVEN)
    assert advice.flags is not None
    assert advice.flags.startswith("--space one --reward alignment --lambda ")
    assert advice.flags.endswith(" --labels all --by-label --adapter-from-pool 0.1")


def test_both_are_found_with_the_lambda_between_them():
    space, reward = by_space("one"), by_reward("alignment")

    def both(pool):
        scale = 0.5 / np.abs(pool.rewards["alignment"]).max()
        poo, mean = space(pool), reward(pool)
        return lambda rows: poo(rows) + scale * mean(rows)

    _, found = check(3, both, noise=0.1)
    assert found.verdict is not None
    assert (found.verdict.space, found.verdict.reward) == ("one", "alignment")
    # The noise of the fit is a few per cent of 0.5, and is rounded to one digit.
    assert recommend(found, GIVEN).lambda_ == pytest.approx(0.5, abs=0.11)


def test_noise_stops_it():
    _, found = check(5, by_nothing, noise=20.0)
    assert found.reliability.icc < LEAST_ICC
    assert found.verdict is None
    assert len(found.runs) == SIZES.repeats + 2 * SIZES.pairs
    advice = recommend(found, GIVEN)
    assert advice.flags is None
    assert "no choice of examples can be seen" in advice.text
    assert table_of(found).row_count == 5
    assert record_of(found, advice)["spaces"]["one"]["lds"] is None
    assert len(check_figure(found).axes) == 3


def test_the_number_of_trainings_is_what_was_said():
    _, found = check(5, by_nothing, noise=0.1)
    assert len(found.runs) == SIZES.trainings(spaces=3)
    record = record_of(found, recommend(found, GIVEN))
    assert json.loads(json.dumps(record)) == record
    assert set(record["spaces"]) == {"one", "two/whiten", "three/whiten/cosine"}
    assert record["spaces"]["one"]["lds"].keys() == {"value", "low", "high"}


def test_scores_are_poo_and_minus_the_mean_reward():
    pool, found = check(6, by_nothing, noise=0.1)
    runs = [run for run, _ in found.runs if run.part == "subsets"][:5]
    scores, pair = scores_of(pool, runs), pool.spaces["one"]
    wanted = [poo(*pair, None, run.rows, lambda_=0.0) for run in runs]
    assert scores["spaces"]["one"] == pytest.approx(wanted, rel=1e-6)
    norms = pool.rewards["norm"]
    means = [-norms[run.rows].mean() / norms.max() for run in runs]
    assert scores["rewards"]["norm"] == pytest.approx(means, rel=1e-12)


def test_lambda_is_kept_within_its_limits():
    poo, rewards = np.random.default_rng(0).normal(size=(2, 30))
    assert best_lambda(poo, rewards, rewards - poo) == 5
    assert best_lambda(poo, rewards, poo - rewards) == 0.01
