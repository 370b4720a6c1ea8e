import numpy as np
import oracles
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

from goracs_jax.errors import InputError
from goracs_jax.evaluate import metrics
from goracs_jax.evaluate.metrics import Bootstrap


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_ranks_are_those_of_a_loop(rng):
    # Distances of few values: most rows have ties; titles of few letters: duplicates.
    distances = rng.integers(0, 5, (200, 12)) / 4
    titles = rng.choice(list("abcdefgh"), (200, 12))
    targets = titles[np.arange(200), rng.integers(0, 12, 200)]
    found = metrics.ranks(distances, titles == targets[:, None])
    expected = [
        oracles.rank(*row) for row in zip(distances, titles, targets, strict=True)
    ]
    assert found.tolist() == expected


def test_hits_and_gains_are_the_textbook_ones(rng):
    distances = rng.normal(size=(50, 30))  # without ties
    is_target = np.eye(30, dtype=bool)[rng.integers(0, 30, 50)]
    values = metrics.ranking_values(metrics.ranks(distances, is_target))
    for k in metrics.KS:
        best = np.argsort(distances, axis=1)[:, :k]
        hits = [is_target[i, best[i]].any() for i in range(50)]
        np.testing.assert_array_equal(values[f"HR@{k}"], hits)
        expected = ndcg_score(is_target, -distances, k=k)
        # Means of fifty numbers in float64.
        assert values[f"NDCG@{k}"].mean() == pytest.approx(expected, abs=1e-12)


def test_weighted_areas_are_scikit_learns(rng):
    positive = rng.random(40) < 0.3
    scores = rng.integers(0, 8, 40) / 7 + 0.1 * positive
    scores[:20] = scores[20:]  # ties across the classes
    weights = rng.integers(0, 4, (30, 40)).astype(float)
    weights[0, positive] = 0
    found = metrics.weighted_auc(positive, scores, weights)
    assert np.isnan(found[0])
    expected = [roc_auc_score(positive, scores, sample_weight=w) for w in weights[1:]]
    np.testing.assert_allclose(found[1:], expected, atol=1e-12)
    ones = metrics.weighted_auc(positive, scores, np.ones((1, 40)))
    assert ones[0] == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_one_class_has_no_area():
    bootstrap = Bootstrap(np.arange(3), 10, 0)
    with pytest.raises(InputError, match=r"all 3 test examples are No: .* both"):
        metrics.auc(np.zeros(3, bool), np.ones(3), bootstrap)


def test_interval_of_a_mean_is_the_normal_one(rng):
    values = rng.normal(2.0, 3.0, size=400)
    found = metrics.means({"m": values}, Bootstrap(np.arange(400), 4000, 1))["m"]
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    error = values.std() / 20
    # A quantile of 4,000 draws at density 0.06 / error has an error of 0.04 of it.
    for end, sign in ((found.low, -1), (found.high, 1)):
        assert end == pytest.approx(
            values.mean() + sign * 1.96 * error, abs=0.2 * error
        )
    same = metrics.means({"m": values}, Bootstrap(np.arange(400), 4000, 1))["m"]
    assert same == found


def test_examples_of_a_user_are_drawn_together(rng):
    users = rng.normal(size=100)
    one = metrics.means({"m": users}, Bootstrap(np.arange(100), 500, 0))["m"]
    # Every user nine times over is no more evidence.
    nine = Bootstrap(np.repeat(np.arange(100), 9), 500, 0)
    many = metrics.means({"m": np.repeat(users, 9)}, nine)["m"]
    np.testing.assert_allclose(many, one, atol=1e-12)


def test_auc_interval_covers(rng):
    """The true area of two normals one apart is Phi(1 / sqrt 2) = 0.760."""
    covered = 0
    for seed in range(40):
        positive = rng.random(120) < 0.4
        scores = rng.normal(size=120) + positive
        found = metrics.auc(positive, scores, Bootstrap(np.arange(120), 200, seed))
        assert found.low < found.value < found.high
        covered += found.low < 0.760 < found.high
    # 38 are expected of 40; fewer than 32 has a chance of 2e-4 at 95 %.
    assert covered >= 32


def test_blocks_of_resamples_change_nothing(rng):
    values, bootstrap = {"m": rng.normal(size=2000)}, Bootstrap(np.arange(2000), 50, 0)
    whole = metrics.means(values, bootstrap)
    in_blocks = metrics.means(values, bootstrap._replace(block=7 * 2000))
    np.testing.assert_allclose(in_blocks["m"], whole["m"])


def test_what_each_example_adds_to_the_area(rng):
    """The mean is the area; the variance is DeLong's, by its definition."""
    positive = np.arange(40) % 3 == 0
    scores = rng.integers(0, 9, 40) + 2.0 * positive  # with ties
    values = metrics.auc_values(positive, scores)
    assert values.mean() == pytest.approx(roc_auc_score(positive, scores), rel=1e-12)
    yes, no = scores[positive], scores[~positive]
    won = lambda p, n: 1.0 if p > n else 0.5 if p == n else 0.0
    rows = [sum(won(p, n) for n in no) / len(no) for p in yes]
    columns = [sum(won(p, n) for p in yes) / len(yes) for n in no]
    variance = np.var(rows) / len(yes) + np.var(columns) / len(no)
    assert values.var() / len(values) == pytest.approx(variance, rel=1e-12)
