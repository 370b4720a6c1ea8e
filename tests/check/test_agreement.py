"""Rank correlations: scipy's, their p, and coverage of the corrected ones."""

import numpy as np
import pytest
from scipy import stats

from goracs_jax.check.agreement import agreements
from goracs_jax.check.reliability import reliability
from goracs_jax.check.trend import trend

SURE = reliability(np.array([[1.0, 1.0], [2.0, 2.0]]))  # ICC 1


def pairs(rng, effects, noise):
    """Outcomes of the same subsets with two seeds each."""
    return effects[:, None] + noise * rng.normal(size=(len(effects), 2))


def test_raw_is_scipys_and_an_icc_of_1_corrects_nothing():
    rng = np.random.default_rng(0)
    score, outcome = rng.normal(size=30), rng.integers(0, 5, 30).astype(float)
    found = agreements({"a": score, "b": -score}, outcome, SURE, seed=0)
    rho, p = stats.spearmanr(score, outcome, alternative="greater")
    assert found["a"].raw.value == pytest.approx(rho, rel=1e-12)
    assert found["b"].raw.value == pytest.approx(-rho, rel=1e-12)
    assert found["a"].corrected == found["a"].raw
    # t's approximation at 30 subsets and the Monte Carlo error of 10,000 permutations.
    assert found["a"].p == pytest.approx(p, abs=0.01)


def test_correction_divides_by_the_root_of_the_icc():
    rng = np.random.default_rng(1)
    known = reliability(pairs(rng, rng.normal(size=12), 0.7))
    x = rng.normal(size=40)
    y = 0.5 * x + rng.normal(size=40)
    found = agreements({"x": x}, y, known, seed=0)["x"]
    assert found.corrected.value == pytest.approx(found.raw.value / known.icc**0.5)
    wide = found.corrected.high - found.corrected.low
    assert wide > (found.raw.high - found.raw.low) / known.icc**0.5


def test_scores_are_compared_on_the_same_resamples():
    """Two scores that differ little do not differ by the noise that they share."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=50)
    y = x + rng.normal(size=50)
    near = x + 0.01 * rng.normal(size=50)
    found = agreements({"x": x, "near": near, "not": -x}, y, SURE, seed=0)
    assert found["x"].above == (0, 0, 0)
    wide = found["x"].corrected.high - found["x"].corrected.low
    assert found["near"].above.high - found["near"].above.low < wide / 5
    apart = found["not"].corrected.value - found["x"].corrected.value
    assert found["not"].above.value == pytest.approx(apart, rel=1e-12)
    assert found["not"].above.high < 0


def test_noise_alone_has_no_correlation_to_correct():
    """With an ICC of at most 0 the value is at the end that the sign says."""
    noise = reliability(np.array([[1.0, 3.0], [3.0, 1.0]]))
    assert noise.icc < 0
    x = np.arange(6.0)
    found = agreements({"x": x, "none": np.ones(6)}, x, noise, seed=0)
    assert found["x"].corrected.value == 1
    assert found["none"].corrected == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("truth", [0.0, 0.6])
def test_the_true_correlation_lies_inside(truth):
    """Of normal numbers Spearman's is 6 / pi asin(r / 2); the ICC is one half.

    A percentile bootstrap of 60 subsets covers somewhat less than 95 %, while the drawn
    ICC widens it: of 300 draws at least 0.91 = 0.95 - 3 SE.
    """
    rng, hits, draws = np.random.default_rng(3), 0, 300
    target = 6 / np.pi * np.arcsin(truth / 2)
    for _ in range(draws):
        worth = rng.normal(size=60)
        twice = pairs(rng, worth, 1.0)
        known = reliability(twice[:12], rng.normal(size=4))
        score = truth * worth + (1 - truth**2) ** 0.5 * rng.normal(size=60)
        found = agreements({"a": score}, twice[:, 0], known, seed=0)
        hits += found["a"].corrected.low <= target <= found["a"].corrected.high
    assert hits / draws > 0.91


def test_p_is_uniform_where_there_is_nothing():
    rng = np.random.default_rng(4)
    drawn = lambda: agreements(
        {"a": rng.normal(size=15)}, rng.normal(size=15), SURE, seed=0
    )
    p = np.array([drawn()["a"].p for _ in range(200)])
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_trend_over_quantiles():
    rng = np.random.default_rng(5)
    quantiles = np.tile(np.arange(5), 4)
    losses = 0.1 * quantiles + rng.normal(size=20) * 0.1
    found = trend(quantiles, losses, seed=0)
    assert found.slope == pytest.approx(stats.linregress(quantiles, losses).slope)
    assert found.losses[2] == pytest.approx(losses[2::5].mean())
    test = stats.spearmanr(quantiles, losses, alternative="greater")
    assert found.p == pytest.approx(test.pvalue, abs=0.01)
    assert trend(quantiles, -losses, seed=0).p > 0.9
