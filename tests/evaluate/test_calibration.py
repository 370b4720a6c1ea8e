"""The calibration against Newton's method by hand, and what it says of sure models."""

from math import exp, log

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from goracs_jax.evaluate.calibration import (
    calibrated,
    cross_fitted,
    fit,
    log_likelihoods,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def newton(z, target, steps=50):
    """Maximise sum t log p + (1 - t) log(1 - p), p = sigmoid(a z + b), in float64."""
    a = b = 0.0
    for _ in range(steps):
        p = [1 / (1 + exp(-(a * x + b))) for x in z]
        g = [sum((t - q) * x for t, q, x in zip(target, p, z, strict=True))]
        g.append(sum(t - q for t, q in zip(target, p, strict=True)))
        w = [q * (1 - q) for q in p]
        xx = sum(v * x * x for v, x in zip(w, z, strict=True))
        x1 = sum(v * x for v, x in zip(w, z, strict=True))
        one = sum(w)
        det = xx * one - x1 * x1
        a += (one * g[0] - x1 * g[1]) / det
        b += (xx * g[1] - x1 * g[0]) / det
    return a, b


def test_log_likelihoods_are_scikit_learns(rng):
    margins = rng.normal(0, 3, 50).astype(np.float32)
    positive = rng.random(50) < 0.5
    expected = log_loss(positive, expit(margins.astype(np.float64)), normalize=False)
    # float64 on both sides, over p that are far from 0 and 1.
    assert -log_likelihoods(margins, positive).sum() == pytest.approx(expected)


def test_a_confident_mistake_costs_its_whole_margin():
    margins = np.array([200.0, -200.0], np.float32)
    found = log_likelihoods(margins, np.array([False, True]))
    np.testing.assert_allclose(found, [-200.0, -200.0])


@pytest.mark.parametrize(("scale", "shift"), [(0.1, 0.0), (1.0, 2.0), (40.0, -100.0)])
def test_two_numbers_are_those_of_newton(rng, scale, shift):
    z = scale * rng.normal(size=80) + shift
    positive = rng.random(80) < expit((z - shift) / scale)
    yes, no = positive.sum(), (~positive).sum()
    target = np.where(positive, (yes + 1) / (yes + 2), 1 / (no + 2))
    a, b = newton(((z - shift) / scale).tolist(), target.tolist())
    found = fit(z, positive)
    # The gradient is below 1e-6 and the curvature above 0.05: 2e-5 in these units.
    assert found.a * scale == pytest.approx(a, abs=2e-5)
    assert found.b + found.a * shift == pytest.approx(b, abs=2e-5)


def test_many_examples_give_the_maximum_of_likelihood(rng):
    """Platt's targets are the answers but for 1 / E: so is what they fit."""
    z = rng.normal(size=20_000)
    positive = rng.random(20_000) < expit(0.5 * z - 1)
    plain = LogisticRegression(C=np.inf).fit(z[:, None], positive)
    found = fit(z, positive)
    # Targets differ by 1.6e-4 at most, over a curvature of 0.15.
    assert found.a == pytest.approx(plain.coef_[0, 0], abs=2e-3)
    assert found.b == pytest.approx(plain.intercept_[0], abs=2e-3)


def test_what_cannot_be_told_from_few_examples_stays_finite(rng):
    apart = fit(np.array([-1.0, 1.0]), np.array([False, True]))
    # Both targets are 2 / 3: a + b and a - b are the logits of 2 / 3 and of 1 / 3.
    assert apart == pytest.approx((log(2), 0.0), abs=1e-5)
    all_yes = fit(rng.normal(size=8), np.ones(8, bool))
    assert all_yes == pytest.approx((0.0, log(9)), abs=1e-4)
    equal = fit(np.full(6, 3.0), np.arange(6) < 2)
    # Targets: (3 / 4) twice and (1 / 6) four times, whose mean is 13 / 36.
    assert equal.a * 3 + equal.b == pytest.approx(log(13 / 23), abs=1e-5)


def test_a_model_that_is_far_too_sure_is_set_right(rng):
    z = rng.normal(size=400)
    positive, known = rng.random(400) < expit(z), np.arange(400) < 200
    sure = 8 * z
    raw = log_likelihoods(sure, positive)[~known].mean()
    fitted = fit(sure[known], positive[known])
    found = calibrated(sure[~known], positive[~known], fitted=fitted).mean()
    best = log_likelihoods(z, positive)[~known].mean()
    assert fitted.a < 0.2
    # Two numbers of 200 examples cost 2 / (2 * 200) nats on average; ten times that.
    assert raw < best - 0.5 < found < best + 0.05
    assert found > best - 0.05


def test_halves_of_users_fit_each_other(rng):
    z, positive = rng.normal(size=60), rng.random(60) < 0.6
    users = np.repeat(np.arange(20), 3)
    found, fits = cross_fitted(z, positive, users)
    for half in (0, 1):
        others = users % 2 != half
        a, b = fit(z[others], positive[others])
        assert fits[half] == (a, b)
        np.testing.assert_array_equal(found[~others], a * z[~others] + b)
    assert fits[0] != fits[1]
    # The answers of a half do not decide its own numbers.
    flipped = np.where(users % 2 == 0, ~positive, positive)
    assert cross_fitted(z, flipped, users)[1][0] == fits[0]
