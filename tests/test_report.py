import numpy as np
import pytest

from goracs_jax.report import Row, draw, principal_plane, table
from goracs_jax.selection import Selection, Step


def test_plane_keeps_distances_of_flat_clouds():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 6)) + 5
    on_train, on_valid = principal_plane(flat[:20], flat[20:])
    plane = np.concatenate([on_train, on_valid])
    gaps = lambda x: np.linalg.norm(x[:, None] - x[None], axis=2)
    # Points of a plane lose nothing; float64 eigenvectors.
    np.testing.assert_allclose(gaps(plane), gaps(flat), atol=1e-9)


def test_one_dimension_is_drawn_on_a_line():
    on_train, _ = principal_plane(np.arange(4.0)[:, None], np.ones((2, 1)))
    assert (on_train[:, 1] == 0).all()


def test_table_shows_dashes_for_what_is_unknown():
    row = Row("random", 0.5, -np.inf, 1.0, float("nan"), 2.0)
    cells = [next(iter(column.cells)) for column in table([row]).columns]
    assert cells == ["random", "0.5000", "-", "1.0000", "-", "2.0"]


@pytest.mark.parametrize("norms", [None, np.linspace(1, 2, 30)])
def test_picture(tmp_path, norms):
    rng = np.random.default_rng(0)
    pick = lambda *trace: Selection(
        np.array([1, 4, 9]), trace[-1].objective, 0.3, trace, converged=True
    )
    chosen = {
        "goracs": pick(Step(0.5, 0.1, 0), Step(0.4, 0.2, 2)),
        "random": pick(Step(0.7, 0.0, 0)),
    }
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(20, 5))
    draw(tmp_path / "a.png", train=x, valid=y, grad_norms=norms, chosen=chosen)
    assert (tmp_path / "a.png").stat().st_size > 10_000
