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


@pytest.mark.parametrize("name", ["grad-norm", "none", "alignment", "alignment/drop:2"])
def test_names_are_read_back(name):
    assert str(Reward.named(name)) == name


@pytest.mark.parametrize("name", ["norm", "alignment/drop:x", "loss-drop/drop:1", ""])
def test_names_that_are_none(name):
    with pytest.raises(InputError, match="a reward is grad-norm"):
        Reward.named(name)
