"""Planted mistakes and the area that finds them, against scikit-learn and loops."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from goracs_jax.check.planted import found_by, neighbour_distances, plant
from goracs_jax.errors import InputError
from goracs_jax.selection.classes import make_classes


def test_area_and_p_are_the_libraries():
    rng = np.random.default_rng(0)
    flag, score = rng.random(50) < 0.4, rng.integers(0, 9, 50).astype(float)
    found = found_by(flag, score)
    assert found.auc.value == pytest.approx(roc_auc_score(flag, score), rel=1e-12)
    exact = stats.mannwhitneyu(score[flag], score[~flag], alternative="greater")
    assert found.p == exact.pvalue


def test_the_true_area_lies_inside_19_times_of_20():
    """Normal scores one apart: P(X > Y) = Phi(1 / sqrt 2). Of 1,000 within 4 SE."""
    rng, hits = np.random.default_rng(1), 0
    flag = np.arange(200) < 80
    for _ in range(1000):
        low, high = found_by(flag, rng.normal(size=200) + flag).auc[1:]
        hits += low <= stats.norm.cdf(0.5**0.5) <= high
    assert abs(hits / 1000 - 0.95) < 0.03


def test_classes_are_flipped():
    outputs = ["a", "b", "c", "a"] * 25
    changed, flag = plant(outputs, 0.3, seed=0)
    assert flag.sum() == 30
    assert [a != b for a, b in zip(outputs, changed, strict=True)] == flag.tolist()
    assert set(changed) == set("abc")
    assert plant(outputs, 0.3, seed=0)[0] == changed != plant(outputs, 0.3, seed=1)[0]


def test_texts_are_exchanged():
    outputs = [f"title {i}" for i in range(100)]
    changed, flag = plant(outputs, 0.4, seed=0)
    assert flag.sum() == 40
    assert sorted(changed) == sorted(outputs)


def test_a_row_that_gets_its_own_text_is_not_flagged():
    outputs = [f"title {i % 25}" for i in range(100)]
    changed, flag = plant(outputs, 0.9, seed=0)
    assert [a != b for a, b in zip(outputs, changed, strict=True)] == flag.tolist()
    assert flag.sum() < 90


@pytest.mark.parametrize("kinds", [3, 100])
def test_an_output_that_does_not_fit_is_not_given(kinds):
    """Of a few classes another one is; of texts the row keeps its own."""
    outputs = [f"title {i % kinds}" for i in range(100)]
    fits = lambda row, output: row % 2 == 0 or output == "title 1"
    changed, flag = plant(outputs, 0.5, seed=0, fits=fits)
    assert [a != b for a, b in zip(outputs, changed, strict=True)] == flag.tolist()
    assert flag[::2].any()
    given = {changed[row] for row in np.flatnonzero(flag) if row % 2}
    assert given == ({"title 1"} if kinds == 3 else set())
    with pytest.raises(InputError, match="no example could be given another one's"):
        plant(outputs, 0.5, seed=0, fits=lambda row, output: False)


def test_one_output_cannot_be_wrong():
    with pytest.raises(InputError, match="all outputs are the same"):
        plant(["Yes"] * 4, 0.4, seed=0)


def test_neighbours_are_those_of_a_loop():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(9, 3))
    labels = rng.integers(0, 2, 12), rng.integers(0, 2, 9)
    for classes in (None, make_classes(*labels, (12, 9))):
        wanted = []
        for i, row in enumerate(x):
            theirs = y if classes is None else y[labels[1] == labels[0][i]]
            near = sorted(np.linalg.norm(row - other) for other in theirs)
            wanted.append(np.mean(near[:4]))
        # float64; scikit-learn squares distances as x x + y y - 2 x y.
        assert neighbour_distances(x, y, classes, k=4) == pytest.approx(
            wanted, rel=1e-9
        )


def test_a_class_that_validation_lacks_is_far():
    x, y = np.array([[0.0], [1.0], [7.0]]), np.array([[0.0]])
    classes = make_classes(np.array([0, 0, 1]), np.array([0]), (3, 1))
    assert neighbour_distances(x, y, classes).tolist() == [0.0, 1.0, 1.0]
