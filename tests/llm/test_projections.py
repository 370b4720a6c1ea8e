import jax
import numpy as np
import optax
import pytest
from lora_examples import F32, TINY, loop_gradients, some_tokens, trained

from goracs_jax.errors import InputError, NumericalError
from goracs_jax.gradients.adam import Moments
from goracs_jax.gradients.projection import CHUNK, signs
from goracs_jax.llm.gradients import example_scores
from goracs_jax.llm.projections import projected_gradients
from goracs_jax.models import Decoder
from goracs_jax.spaces import leading_directions

DIM, KEY = 37, jax.random.key(3)


@pytest.fixture(scope="module")
def model():
    return trained(Decoder(TINY, key=jax.random.key(0)))


@pytest.fixture(scope="module")
def tokens():
    return some_tokens()


@pytest.fixture(scope="module")
def gradients(model, tokens):
    """Those of all adapters, by a loop, in float64."""
    return np.array(list(loop_gradients(model, tokens, "all_lora")), np.float64)


@pytest.fixture(scope="module")
def moments(gradients):
    """As after 30 steps with gradients of this size."""
    rng = np.random.default_rng(1)
    size = np.abs(gradients).mean(axis=0)
    mu = 0.3 * size * rng.normal(size=size.shape)
    return Moments(mu.astype(np.float32), (size**2).astype(np.float32) / 30, 30)


def whole_matrix(params):
    chunks = -(-params // CHUNK)
    return np.concatenate([signs(KEY, i, DIM) for i in range(chunks)])[:params]


@pytest.mark.parametrize("which", ["last_v_lora_b", "all_lora"])
def test_projections_are_explicit_ones(model, tokens, which):
    """The gradient of each example by a loop, times the whole matrix in float64."""
    dim, key = DIM, KEY
    gradients = np.array(list(loop_gradients(model, tokens, which)), np.float64)
    expected = gradients @ whole_matrix(gradients.shape[1]) / dim**0.5
    found = projected_gradients(
        model, tokens, dim=dim, key=key, which=which, tokens_per_batch=64
    )
    # Entries of both signs cancel in each sum: the error is one of their size.
    scale = np.linalg.norm(gradients, axis=1).max()
    np.testing.assert_allclose(found.gradients, expected, atol=1e-4 * scale)
    scores = example_scores(model, tokens, which=which, tokens_per_batch=64)
    for one, other in zip(found.scores, scores, strict=True):
        np.testing.assert_allclose(one, other, **F32)
    half = projected_gradients(
        model, tokens, dim=dim, key=key, which=which, dtype="float16"
    )
    assert half.gradients.dtype == np.float16
    # 11 bits, and the least number that float16 has.
    np.testing.assert_allclose(
        half.gradients, found.gradients, rtol=2e-3, atol=1e-4 * scale
    )


def test_a_step_of_adam_is_projected(model, tokens, gradients, moments):
    """LESS's formula by a loop in float64, and optax's own Adam on one example."""
    b1, b2, eps, t = 0.9, 0.999, 1e-8, moments.count + 1
    steps = []
    for g in gradients:
        m = (b1 * moments.mu + (1 - b1) * g) / (1 - b1**t)
        v = (b2 * moments.nu + (1 - b2) * g**2) / (1 - b2**t)
        steps.append(m / (np.sqrt(v) + eps))
    steps = np.array(steps)
    adam = optax.adam(1.0)
    start = adam.init(moments.mu)
    state = (optax.ScaleByAdamState(np.int32(30), moments.mu, moments.nu), *start[1:])
    update, _ = adam.update(gradients[2].astype(np.float32), state)
    np.testing.assert_allclose(-update, steps[2], rtol=1e-4, atol=1e-6)
    found = projected_gradients(
        model,
        tokens,
        dim=DIM,
        key=KEY,
        which="all_lora",
        moments=moments,
        tokens_per_batch=64,
    )
    expected = steps @ whole_matrix(steps.shape[1]) / DIM**0.5
    # A gradient is right to 1e-4 of its largest entries, which Adam makes about 1.
    scale = np.linalg.norm(steps, axis=1).max()
    np.testing.assert_allclose(found.gradients, expected, atol=1e-3 * scale)
    plain = example_scores(model, tokens, which="all_lora", tokens_per_batch=64)
    np.testing.assert_allclose(found.scores.norm, plain.norm, **F32)
    assert np.abs(steps @ steps.T).max() > 1  # no row is zero


def test_a_subspace_in_one_pass_is_that_of_the_wide_projections(model, tokens):
    given = {"dim": DIM, "key": KEY, "which": "all_lora", "tokens_per_batch": 64}
    wide = projected_gradients(model, tokens, **given).gradients
    directions = leading_directions(wide[:3], 2)
    found = projected_gradients(model, tokens, **given, directions=directions)
    assert found.gradients.shape == (5, 2)
    scale = np.linalg.norm(wide, axis=1).max()
    # Sums of 37 float32 products in another order.
    np.testing.assert_allclose(found.gradients, wide @ directions, atol=1e-5 * scale)


def test_refuses(model, tokens, moments):
    refused = lambda match: pytest.raises(InputError, match=match)
    given = {"key": KEY, "which": "all_lora"}
    with refused("at least 1 dimension, got 0"):
        projected_gradients(model, tokens, dim=0, key=KEY)
    with refused("moments are those of all adapters"):
        projected_gradients(model, tokens, dim=5, key=KEY, moments=moments)
    few = Moments(moments.mu[1:], moments.nu[1:], 1)
    with refused(f"moments of {len(few.nu)} adapter weights"):
        projected_gradients(model, tokens, dim=5, moments=few, **given)
    with refused("directions have 4 numbers, projections 5"):
        projected_gradients(model, tokens, dim=5, directions=np.eye(4), **given)


@pytest.mark.parametrize("column", range(3))
def test_no_score_is_returned_that_is_not_finite(model, tokens, column):
    table = np.ones((len(tokens.lengths), 3), np.float32)
    table[3, column] = np.nan
    name = ("the gradient norm", "the loss", "the prediction error")[column]
    rows = (table, np.ones((len(table), 5), np.float32))
    with pytest.raises(NumericalError, match=f"^{name} of example 4"):
        projected_gradients(model, tokens, dim=5, key=KEY, mapper=lambda *_: rows)
