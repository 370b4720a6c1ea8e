import numpy as np
import pytest
from sklearn.decomposition import PCA

from goracs_jax.report.picture import Row, figure, principal_plane, table
from goracs_jax.selection.problem import Selection, Step


def test_plane_keeps_distances_of_flat_clouds():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 6)) + 5
    on_train, on_valid = principal_plane(flat[:20], flat[20:])
    plane = np.concatenate([on_train, on_valid])
    gaps = lambda x: np.linalg.norm(x[:, None] - x[None], axis=2)
    # Points of a plane lose nothing; float64 eigenvectors.
    np.testing.assert_allclose(gaps(plane), gaps(flat), atol=1e-9)


def test_plane_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    cloud = rng.normal(size=(200, 60)) * np.geomspace(3, 0.1, 60)
    on_train, on_valid = principal_plane(cloud[:150], cloud[150:])
    expected = PCA(n_components=2, svd_solver="full").fit_transform(cloud)
    found = np.concatenate([on_train, on_valid])
    # Singular values fall by 5 % from one to the next, and the twelfth to a half: eight
    # rounds leave a share of 2^-16. Axes have no sign.
    np.testing.assert_allclose(abs(found), abs(expected), atol=1e-3)


def test_one_dimension_is_drawn_on_a_line():
    on_train, _ = principal_plane(np.arange(4.0)[:, None], np.ones((2, 1)))
    assert (on_train[:, 1] == 0).all()


@pytest.mark.parametrize("cloud", [np.ones((3, 4)), np.eye(4), np.eye(2, 64)])
def test_clouds_that_a_centre_leaves_few_axes(cloud):
    on_train, on_valid = principal_plane(cloud, cloud[:1])
    # Products of other shapes round otherwise, in float64.
    np.testing.assert_allclose(on_train[0], on_valid[0], atol=1e-12)
    # Two rows, or four at the corners of a simplex: no axis holds more than another.
    spread = np.linalg.norm(on_train - on_train.mean(0))
    assert spread <= np.linalg.norm(cloud - cloud.mean(0)) + 1e-9
    assert (spread > 0) == (np.ptp(cloud) > 0)


def test_table_shows_dashes_for_what_is_unknown():
    row = Row("random", 0.5, -np.inf, 1.0, float("nan"), 2.0)
    cells = [next(iter(column.cells)) for column in table([row]).columns]
    assert cells == ["random", "0.5000", "-", "1.0000", "-", "2.0"]


RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 5)), RNG.normal(size=(20, 5))


def select(*trace):
    return Selection(np.array([1, 4, 9]), trace[-1].objective, 0.3, trace, True)


CHOSEN = {
    "goracs": select(Step(0.5, 0.1, 0), Step(0.4, 0.2, 2)),
    "random": select(Step(0.7, 0.0, 0)),
}


def test_picture_shows_the_selection():
    norms = RNG.gamma(3.0, size=30)
    clouds, steps, histogram = figure(
        train=X, valid=Y, weighed=("gradient norm", norms), chosen=CHOSEN
    ).axes
    on_train, on_valid = principal_plane(X, Y)
    drawn = [np.asarray(points.get_offsets()) for points in clouds.collections]
    for found, expected in zip(
        drawn, (on_valid, on_train, on_train[[1, 4, 9]]), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    lines = {line.get_label(): line.get_ydata() for line in steps.lines}
    assert list(lines["goracs"]) == [0.5, 0.4]
    assert list(lines["random subset"]) == [0.7]
    assert list(lines["no subset can be below"]) == [0.3, 0.3]
    every, chosen = (sum(p.get_height() for p in bars) for bars in histogram.containers)
    assert every == pytest.approx(100)
    assert chosen == pytest.approx(100)


@pytest.mark.parametrize("norms", [None, np.ones(30), np.nextafter(np.ones(30), 2)])
def test_picture_of_no_or_equal_norms(tmp_path, norms):
    picture = figure(train=X, valid=Y, weighed=("gradient norm", norms), chosen=CHOSEN)
    picture.savefig(tmp_path / "a.png")
