"""Which trials tune the learning rate, what they decide, and steps of equal tokens."""

import numpy as np
import pytest

from goracs_jax.comparison.design import Arm, Trial, design
from goracs_jax.comparison.steps import steps_for
from goracs_jax.comparison.tuning import tuned_rates, tuning_trials, with_rate
from goracs_jax.settings import Compare
from goracs_jax.training.order import Order

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


@pytest.mark.parametrize("batch_size", [1, 4, 7, 40])
@pytest.mark.parametrize("tokens", [90, 333, 2000])
def test_no_other_steps_are_closer_to_the_tokens(batch_size, tokens):
    """Against a loop over all steps, on examples of one length and of several."""
    rng = np.random.default_rng(tokens)
    for lengths in (np.full(11, 9), rng.integers(1, 14, size=17)):
        order = Order.of_contents((bytes([i]) for i in range(len(lengths))), tokens)
        seen, away = 0, [tokens]  # of no step
        for epoch in range(60):
            rows = order.epoch(epoch)
            for start in range(0, len(rows), batch_size):
                seen += int(lengths[rows[start : start + batch_size]].sum())
                away.append(abs(seen - tokens))
        assert seen > tokens
        steps = steps_for(tokens, lengths, order, batch_size)
        assert away[steps] == min(away)
        assert away[steps] <= np.sort(lengths)[-batch_size:].sum() / 2


def test_arms_are_read_and_written():
    texts = ("goracs", "goracs:by-label", "goracs@text", "goracs:by-label@a/b@none")
    assert [str(Arm.parse(text)) for text in texts] == list(texts)
    assert Arm.parse("random@gradient/drop:1") == (
        "random",
        False,
        "gradient/drop:1",
        "",
    )
