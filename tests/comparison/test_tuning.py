"""Which trials tune the learning rate, what they decide, and steps of equal tokens."""

import numpy as np
import pytest

from goracs_jax.comparison.design import Arm, Trial, design
from goracs_jax.comparison.steps import steps_for
from goracs_jax.comparison.tuning import tuned_rates, tuning_trials, with_rate
from goracs_jax.settings import Compare

RATES = (1e-3, 1e-2)


def settings(tmp_path, **more):
    files = {name: tmp_path / name for name in ("train", "valid", "test", "model")}
    flags = {"methods": (), "budgets": (), "tune_learning_rate": RATES} | more
    return Compare(**files, **flags, out=tmp_path)  # pyright: ignore


def test_tuning_has_its_own_seeds_and_random_alone(tmp_path):
    methods = ["full", "goracs", "k-means:by-label"]
    trials = design(methods, [4, 8], [0.1], [5, 6], full_seeds=1, n_train=50)
    given = settings(tmp_path, seed=5, seeds=2, tuning_seeds=3)
    tuning = tuning_trials(given, trials)
    expected = {Trial("full", None, 50, 4, rate) for rate in RATES}
    expected |= {
        Trial("random", None, budget, seed, rate)
        for budget in (4, 8)
        for seed in (4, 3, 2)
        for rate in RATES
    }
    assert set(tuning) == expected
    assert len(tuning) == len(expected)
    # They stay the same when seeds are added, and go on below zero.
    more = design(methods, [4, 8], [0.1], [5, 6, 7], full_seeds=1, n_train=50)
    assert tuning_trials(given, more) == tuning
    first = tuning_trials(settings(tmp_path, tuning_seeds=2), trials)
    assert {t.seed for t in first} == {2**32 - 1, 2**32 - 2}
    assert tuning_trials(settings(tmp_path, tune_learning_rate=None), trials) == []


def test_the_least_mean_loss_decides_for_all_methods_of_a_budget():
    losses = {
        Trial("random", None, 4, 9, 1e-3): 1.0,
        Trial("random", None, 4, 8, 1e-3): 3.0,
        Trial("random", None, 4, 9, 1e-2): 1.9,
        Trial("random", None, 4, 8, 1e-2): 1.9,
        Trial("full", None, 50, 9, 1e-3): 0.5,
        Trial("full", None, 50, 9, 1e-2): 0.6,
        Trial("random", None, 8, 9, 1e-3): 1.0,
        Trial("random", None, 8, 9, 1e-2): None,
    }
    tuned = tuned_rates(losses)
    assert [(t.method, t.budget, t.learning_rate) for t in tuned] == [
        ("random", 4, 1e-2),
        ("full", 50, 1e-3),
    ]
    assert tuned[0].losses == {1e-3: 2.0, 1e-2: 1.9}
    rate = lambda *cell: with_rate(Trial(*cell, 0), tuned).learning_rate
    assert rate("goracs:by-label", 0.1, 4) == rate("random", None, 4) == 1e-2
    assert rate("full", None, 50) == 1e-3
    assert rate("goracs", 0.1, 8) is None
    # A choice of all rows is not full.
    assert rate("random", None, 50) is None


@pytest.mark.parametrize("batch_size", [1, 4, 7])
@pytest.mark.parametrize("tokens", [90, 333, 2000])
def test_steps_end_within_a_batch_of_the_tokens(batch_size, tokens):
    """Against a loop over steps, on examples of one length and of several."""
    rng = np.random.default_rng(tokens)
    for lengths in (np.full(11, 9), rng.integers(5, 14, size=17)):
        steps = steps_for(tokens, lengths, batch_size)
        seen = 0
        for step in range(steps):
            start = batch_size * (step % -(-len(lengths) // batch_size))
            seen += int(lengths[start : start + batch_size].sum())
        # Half a batch by rounding; of unequal lengths, the rows of a part of an epoch
        # differ from their mean by no more than half of all rows times the range.
        spread = np.ptp(lengths) * len(lengths) / 2
        assert abs(seen - tokens) <= lengths.mean() * batch_size / 2 + spread


def test_arms_are_read_and_written():
    texts = ("goracs", "goracs:by-label", "goracs@text", "goracs:by-label@a/b@none")
    assert [str(Arm.parse(text)) for text in texts] == list(texts)
    assert Arm.parse("random@gradient/drop:1") == (
        "random",
        False,
        "gradient/drop:1",
        "",
    )
