"""Alignment against a plain loop, and against the validation loss after a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import goracs_jax as gx
from goracs_jax.errors import InputError
from goracs_jax.spaces import Reward

RNG = np.random.default_rng(1)
X, Y = RNG.normal(size=(9, 4)), RNG.normal(size=(6, 4)) + 1
A, B = np.array(list("abcabcabc")), np.array(list("aabbbb"))


@pytest.mark.parametrize("drop", [0, 1, 2])
@pytest.mark.parametrize("labels", [False, True])
def test_alignment_is_that_of_a_loop(drop, labels):
    kinds = {"train_labels": A, "valid_labels": B} if labels else {}
    found = gx.alignment(X, Y, drop=drop, **kinds)
    _, _, v = np.linalg.svd(Y)
    for i, x in enumerate(X):
        mine = Y[A[i] == B] if labels else Y
        expected = 0.0
        for y in mine:
            kept = y - sum((y @ v[k]) * v[k] for k in range(drop))
            expected += x @ kept / len(mine)
        assert found[i] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert not labels or not found[A == "c"].any()  # which validation lacks


def test_alignment_is_what_a_step_lowers_the_validation_loss_by():
    """To first order in the step; what is left is of its square."""
    loss = lambda w, example: jnp.log1p(jnp.exp(-jnp.dot(w, example)))
    w = jnp.asarray(RNG.normal(size=4))
    gradients = [
        np.asarray(jax.vmap(jax.grad(loss), (None, 0))(w, jnp.asarray(rows)))
        for rows in (X, Y)
    ]
    mean_loss = lambda w: np.mean([float(loss(w, jnp.asarray(y))) for y in Y])
    with jax.enable_x64(True):
        w, eta = jnp.asarray(w, jnp.float64), 1e-4
        fall = [
            (mean_loss(w) - mean_loss(w - eta * jnp.asarray(g))) / eta
            for g in gradients[0]
        ]
    aligned = gx.alignment(*gradients)
    # Curvature is at most |y|^2 / 4, so the second-order term at most this; gradients
    # and alignment are rounded to float32.
    largest = max(np.sum(g**2) for g in gradients[0])
    second = eta * largest * np.max(np.sum(Y**2, 1)) / 8
    np.testing.assert_allclose(aligned, fall, atol=second + 1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((X, Y[:, :3], {}), "matrices .* of one width"),
        ((X, Y, {"train_labels": A}), "labels of both sets, or of none"),
        ((X, Y, {"train_labels": A[1:], "valid_labels": B}), "one per row, 9 and 6"),
        ((X, Y, {"drop": 4}), "without 4 directions is nothing"),
        ((X, Y, {"drop": -1}), "drop must be an integer of at least 0, got -1"),
        ((X, Y * np.nan, {}), "not all finite"),
        (
            (X, Y, {"train_labels": A, "valid_labels": np.char.upper(B)}),
            "no training row has",
        ),
    ],
)
def test_what_cannot_be_aligned(given, message):
    x, y, more = given
    with pytest.raises(InputError, match=message):
        gx.alignment(x, y, **more)


def test_a_probe_is_the_influence_on_the_validation_loss():
    """By automatic differentiation, of the classifier that knows the shares alone."""
    x, y = X.copy(), Y.copy()
    x[:, 3] = y[:, 3] = 7.0  # a column that tells nothing
    names = np.unique(B)
    e = lambda labels: (labels[:, None] == names).astype(float)
    with jax.enable_x64(True):
        for damping in (0.1, 1.0, 5.0):
            found = gx.probe(x, y, A, B, damping=damping)
            standard = lambda rows: (rows[:, :3] - y[:, :3].mean(0)) / y[:, :3].std(0)
            z, shares = standard(y), e(B).mean(0)
            penalty = damping * np.sum(z**2) / len(z)

            def of(w, row, one_hot):
                return 0.5 * jnp.sum((shares + row @ w - one_hot) ** 2)  # noqa: B023

            def total(w):
                each = jax.vmap(of, (None, 0, 0))(w, z, e(B))  # noqa: B023
                return jnp.sum(each) + 0.5 * penalty * jnp.sum(w**2)  # noqa: B023

            w = jnp.zeros((3, 2))
            hessian = jax.hessian(total)(w).reshape(6, 6)
            newton = np.linalg.solve(hessian, jax.grad(total)(w).ravel())
            own = jax.vmap(jax.grad(of), (None, 0, 0))(w, standard(x), e(A))
            expected = own.reshape(9, 6) @ newton
            known = np.isin(A, names)
            # Both in float64; what comes back is rounded to float32.
            np.testing.assert_allclose(found[known], expected[known], rtol=1e-6)
            assert not found[~known].any()


def test_a_probe_finds_the_examples_with_the_wrong_answer():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 20)), rng.normal(size=(100, 20))
    right = lambda rows: np.where(rows[:, 0] > 0, "Yes", "No")
    flipped = rng.random(400) < 0.4
    given = np.where(flipped, np.where(right(x) == "Yes", "No", "Yes"), right(x))
    found = gx.probe(x, y, given, right(y))
    assert np.mean(found[flipped] < 0) > 0.8
    assert np.mean(found[~flipped] > 0) > 0.8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((X, Y[:, :3], A, B, {}), "matrices .* of one width"),
        ((X, Y, A[1:], B, {}), "one per row, 9 and 6"),
        ((X, Y, A, np.full(6, "a"), {}), "all validation rows have one class"),
        ((X, Y, A, B, {"damping": 0.0}), "damping must be above 0"),
        ((X, Y, A, np.char.upper(B), {}), "no training row has"),
    ],
)
def test_what_cannot_be_probed(given, message):
    *arrays, more = given
    with pytest.raises(InputError, match=message):
        gx.probe(*arrays, **more)


def test_a_probe_needs_classes():
    with pytest.raises(InputError, match="give --by-label \\(or METHOD"):
        Reward("probe").of(X, Y, None)
    found = Reward("probe").of(X, Y, (A, B))
    assert found.tolist() == gx.probe(X, Y, A, B).tolist()


@pytest.mark.parametrize("name", ["grad-norm", "none", "alignment", "alignment/drop:2"])
def test_names_are_read_back(name):
    assert str(Reward.named(name)) == name


@pytest.mark.parametrize("name", ["norm", "alignment/drop:x", "loss-drop/drop:1", ""])
def test_names_that_are_none(name):
    with pytest.raises(InputError, match="a reward is grad-norm"):
        Reward.named(name)
