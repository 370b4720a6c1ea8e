import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from goracs_jax.errors import InputError
from goracs_jax.models import (
    Decoder,
    DecoderConfig,
    LoraConfig,
    LoRALinear,
    with_dropout,
)

RATE = 0.25


def layer_with_dropout(rate):
    """One layer under a layer axis of one, as a decoder has it."""
    lora = LoraConfig(r=4, alpha=8.0, dropout=rate)
    layer = LoRALinear("q_proj", 64, 64, lora, rngs=nnx.Rngs(0))
    layer.kernel = nnx.Param(jnp.zeros((1, 64, 64)))
    # d(x) A B is d(x): what was dropped shows.
    layer.lora_a = nnx.LoRAParam(jnp.eye(64)[None])
    layer.lora_b = nnx.LoRAParam(jnp.eye(64)[None])
    return layer


def test_drops_a_share_of_the_inputs_and_scales_the_rest():
    layer = layer_with_dropout(RATE)
    x = jnp.ones((1, 500, 64))
    graph, state = nnx.split(with_dropout(layer, jax.random.key(1)))
    first = nnx.merge(graph, jax.tree.map(lambda w: w[0], state))
    dropped = np.asarray(first(x)) / layer.scale
    values = np.unique(dropped)
    np.testing.assert_allclose(values, [0, 1 / (1 - RATE)], rtol=1e-6)
    # 32,000 draws: four standard deviations of the share.
    assert abs(np.mean(dropped == 0) - RATE) < 4 * np.sqrt(RATE * (1 - RATE) / 32_000)
    graph, state = nnx.split(layer)
    plain = nnx.merge(graph, jax.tree.map(lambda w: w[0], state))
    np.testing.assert_array_equal(plain(x), plain.scale * x)


@pytest.fixture(scope="module")
def model():
    model = Decoder(
        DecoderConfig.tiny(), LoraConfig(dropout=RATE), key=jax.random.key(0)
    )
    for name in ("q_proj", "v_proj"):
        b = getattr(model.layers.attention, name).lora_b
        b[...] = jax.random.normal(jax.random.key(3), b.shape)
    return model


@nnx.jit
def trained(model, ids, key):
    return with_dropout(model, key).hidden(ids)


def test_draws_depend_on_the_key_alone(model):
    ids = jnp.arange(12)
    one, other = jax.random.split(jax.random.key(1))
    np.testing.assert_array_equal(trained(model, ids, one), trained(model, ids, one))
    assert np.abs(trained(model, ids, one) - trained(model, ids, other)).max() > 1e-2
    assert np.abs(trained(model, ids, one) - model.hidden(ids)).max() > 1e-2


def test_padding_does_not_change_the_draws(model):
    ids, key = jnp.arange(12), jax.random.key(1)
    padded = jnp.pad(ids, (0, 8), constant_values=-1)
    # float32 sums in programs of two shapes.
    np.testing.assert_allclose(
        trained(model, padded, key)[:12], trained(model, ids, key), atol=1e-5
    )


def test_layers_and_matrices_draw_apart(model):
    _, keys, _ = nnx.split(
        with_dropout(model, jax.random.key(0)), nnx.PathContains("dropout_key"), ...
    )
    found = [jax.random.key_data(k) for k in jax.tree.leaves(keys)]
    found = np.concatenate([data.reshape(-1, 2) for data in found])
    assert len(np.unique(found, axis=0)) == 2 * model.config.num_layers


def test_without_dropout_nothing_is_drawn():
    model = Decoder(
        DecoderConfig.tiny(), LoraConfig(dropout=0.0), key=jax.random.key(0)
    )
    ids = jnp.arange(12)
    np.testing.assert_array_equal(
        trained(model, ids, jax.random.key(1)), nnx.jit(Decoder.hidden)(model, ids)
    )


def test_refuses_a_dropout_of_one():
    with pytest.raises(InputError, match=r"dropout must be in \[0, 1\), got 1"):
        LoraConfig(dropout=1.0)
