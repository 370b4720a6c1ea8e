from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from goracs_jax.errors import InputError
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig, LoRALinear
from goracs_jax.models.attention import attend, visible_pairs
from goracs_jax.models.layers import softcap
from goracs_jax.models.lora import LINEAR_NAMES
from goracs_jax.models.rope import RopeConfig, rope_table, rotate, rotate_in_place

TINY = DecoderConfig.tiny()
# Every field that a family may set, all at once.
ALL = DecoderConfig.tiny(
    num_layers=3,
    activation="gelu_tanh",
    biases=LINEAR_NAMES,
    qk_norm=True,
    norm_offset=1.0,
    post_norms=True,
    embed_scale=3.0,
    attention_scale=0.5,
    attention_softcap=2.0,
    logit_softcap=3.0,
    sliding=(True, False, True),
    window=4,
    sliding_rope=RopeConfig(theta=30.0),
)
# Rounding of float32 sums over some hundred terms of size one.
F32 = {"rtol": 1e-5, "atol": 1e-5}
run = nnx.jit(lambda model, ids: model(ids))


@pytest.fixture(scope="module", params=[TINY, ALL], ids=["llama", "all"])
def model(request):
    return Decoder(request.param, key=jax.random.key(0))


@pytest.fixture(scope="module")
def ids():
    return jax.random.randint(jax.random.key(1), (3, 9), 0, TINY.vocab_size)


@pytest.mark.parametrize("window", [None, 1, 3])
def test_attention_is_jaxs_own(window):
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (2, 7, 6, 8))
    k, v = (jax.random.normal(key, (2, 7, 2, 8)) for key in keys[1:])
    visible = visible_pairs(jnp.arange(7), jnp.arange(7), window)
    ours = attend(q, k, v, visible, scale=0.3)
    # JAX counts the tokens on either side of a token, without it.
    sides = None if window is None else (window - 1, 0)
    theirs = jax.nn.dot_product_attention(
        q, k, v, is_causal=True, scale=0.3, local_window_size=sides
    )
    np.testing.assert_allclose(ours, theirs, **F32)


def test_the_last_queries_alone_are_those_of_the_whole():
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (7, 6, 8))
    k, v = (jax.random.normal(key, (7, 2, 8)) for key in keys[1:])
    time = jnp.arange(7)
    whole = attend(q, k, v, visible_pairs(time, time, 4), scale=1.0, cap=2.0)
    last = attend(q[5:], k, v, visible_pairs(time[5:], time, 4), scale=1.0, cap=2.0)
    np.testing.assert_allclose(last, whole[5:], **F32)


def _plain_attention(q, k, v, visible, *, scale, cap):
    """Attention by its definition, with keys and values repeated for their queries."""
    k, v = (jnp.repeat(x, q.shape[-2] // x.shape[-2], axis=-2) for x in (k, v))
    scores = softcap(scale * jnp.einsum("...qhd,...khd->...hqk", q, k), cap)
    weights = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1)
    return jnp.einsum("...hqk,...khd->...qhd", weights, v)


@pytest.mark.parametrize(("window", "cap"), [(None, None), (3, 2.0)])
def test_gradients_of_attention_are_those_of_its_definition(window, cap):
    keys = jax.random.split(jax.random.key(0), 4)
    q, weight = (jax.random.normal(key, (2, 5, 6, 8)) for key in keys[:2])
    k, v = (jax.random.normal(key, (2, 7, 2, 8)) for key in keys[2:])
    visible = visible_pairs(jnp.arange(2, 7), jnp.arange(7), window)

    def gradients(attend):
        def total(qkv, weight):
            return jnp.sum(weight * attend(*qkv, visible, scale=0.3, cap=cap))

        return jax.vmap(jax.grad(total))((q, k, v), weight)

    ours, theirs = gradients(attend), gradients(_plain_attention)
    jax.tree.map(partial(np.testing.assert_allclose, **F32), ours, theirs)


def test_rotation_is_a_complex_product():
    x = jax.random.normal(jax.random.key(0), (300, 2, 6))
    half = np.asarray(x[..., :3] + 1j * x[..., 3:])
    frequency = 500.0 ** (-np.arange(3) / 3)
    turn = np.exp(1j * np.arange(300)[:, None, None] * frequency)
    expected = np.concatenate([(half * turn).real, (half * turn).imag], axis=-1)
    # An angle of 300 is known to 300 * 2^-24 = 2e-5 in float32.
    speed = RopeConfig(theta=500.0).frequencies(6)
    for turned in (rotate, rotate_in_place):
        out = turned(x, rope_table(jnp.arange(300), speed))
        np.testing.assert_allclose(out, expected, atol=1e-4)


def test_a_token_does_not_see_what_follows(model, ids):
    changed = ids.at[:, 5:].set(7)
    before, after = run(model, ids), run(model, changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert not np.allclose(before[:, 5:], after[:, 5:])


def test_padding_changes_nothing(model, ids):
    padded = jnp.pad(ids, ((0, 0), (0, 4)), constant_values=-1)
    np.testing.assert_allclose(run(model, padded)[:, :9], run(model, ids), **F32)


def test_one_sequence_is_a_row_of_the_batch(model, ids):
    np.testing.assert_allclose(run(model, ids[1]), run(model, ids)[1], **F32)


def test_tail_after_prefix_is_hidden(model, ids):
    parts = lambda model, ids: model.tail(model.last_layer(), model.prefix(ids))
    hidden = nnx.jit(lambda model, ids: model.hidden(ids))(model, ids)
    np.testing.assert_allclose(nnx.jit(parts)(model, ids), hidden, **F32)


@pytest.mark.parametrize("mapped", [False, True], ids=["batch", "vmap"])
def test_states_at_some_places_are_those_of_hidden(model, ids, mapped):
    """In any order, more than once, and differently in each text."""
    at = jnp.array([[8, 0], [3, 3], [7, 2]])
    some = jax.vmap(model.hidden_at) if mapped else model.hidden_at
    found = nnx.jit(lambda model, ids, at: some(ids, at))(model, ids, at)
    hidden = nnx.jit(lambda model, ids: model.hidden(ids))(model, ids)
    expected = np.take_along_axis(np.asarray(hidden), np.asarray(at)[..., None], axis=1)
    np.testing.assert_allclose(found, expected, **F32)


def test_a_single_layer_has_an_empty_prefix(ids):
    model = Decoder(DecoderConfig.tiny(num_layers=1), key=jax.random.key(0))
    parts = lambda model, ids: model.tail(model.last_layer(), model.prefix(ids))
    hidden = nnx.jit(lambda model, ids: model.hidden(ids))(model, ids)
    np.testing.assert_allclose(nnx.jit(parts)(model, ids), hidden, **F32)


def test_a_stack_of_sliding_layers_sees_a_window_per_layer():
    sizes = {"num_layers": 2, "sliding": (True, True), "window": 3}
    model = Decoder(DecoderConfig.tiny(**sizes), key=jax.random.key(0))
    ids = jnp.arange(12)
    before, after = run(model, ids), run(model, ids.at[0].set(50))
    # Two layers of three tokens reach back over 2 * (3 - 1) tokens.
    np.testing.assert_array_equal(before[5:], after[5:])
    assert not np.allclose(before[4], after[4])


def test_every_layer_is_sliding_or_not():
    with pytest.raises(InputError, match="sliding must name 2 layers, got 1"):
        DecoderConfig.tiny(num_layers=2, sliding=(True,))


@pytest.mark.parametrize("alternating", [False, True])
def test_the_program_does_not_grow_with_depth(alternating):
    def program(num_layers):
        sliding = tuple(i % 2 == 0 for i in range(num_layers)) if alternating else ()
        sizes = {"num_layers": num_layers, "sliding": sliding, "window": 4}
        config = DecoderConfig.tiny(**sizes)
        shapes = nnx.eval_shape(lambda: Decoder(config, key=jax.random.key(0)))
        graph, state = nnx.split(shapes)
        loss = lambda state, ids: nnx.merge(graph, state)(ids).sum()
        ids = jax.ShapeDtypeStruct((2, 8), jnp.int32)
        grad = jax.jit(jax.grad(loss, allow_int=True))
        return len(grad.lower(state, ids).as_text().splitlines())

    assert program(12) == program(3)


def test_bfloat16_weights_stay_bfloat16_and_adapters_float32(ids):
    model = Decoder(TINY, key=jax.random.key(0), dtype=jnp.bfloat16)
    exact = Decoder(TINY, key=jax.random.key(0))
    assert run(model, ids).dtype == jnp.bfloat16
    assert {w.dtype for w in jax.tree.leaves(nnx.state(model, nnx.LoRAParam))} == {
        jnp.dtype("float32")
    }
    # Eight bits of mantissa through two layers: some percent of the spread.
    spread = float(jnp.std(run(exact, ids)))
    np.testing.assert_allclose(run(model, ids), run(exact, ids), atol=0.1 * spread)


def test_lora_is_the_formula_and_starts_at_zero():
    lora = LoraConfig(r=3, alpha=12.0)
    layer = LoRALinear("q_proj", 5, 4, lora, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (6, 5))
    w, a = layer.kernel[...], layer.lora_a[...]
    np.testing.assert_allclose(layer(x), x @ w, **F32)
    assert float(jnp.max(jnp.abs(a))) <= 5**-0.5
    assert float(jnp.max(jnp.abs(a))) > 0.5 * 5**-0.5
    b = jax.random.normal(jax.random.key(2), (3, 4))
    layer.lora_b = nnx.LoRAParam(b)
    np.testing.assert_allclose(layer(x), x @ w + (12 / 3) * (x @ a @ b), **F32)


def test_lora_goes_where_it_is_told():
    lora = LoraConfig(targets=("v_proj", "down_proj"))
    model = Decoder(TINY, lora, key=jax.random.key(0))
    paths = {path[-2] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.LoRAParam))}
    assert paths == {"v_proj", "down_proj"}
    assert lora == LoraConfig(targets=("down_proj", "v_proj"))


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"r": 0}, "r must be at least 1, got 0"),
        ({"targets": ("q_proj", "lm_head")}, "got lm_head"),
        ({"targets": ()}, "got none"),
    ],
)
def test_lora_refuses(kwargs, named):
    with pytest.raises(InputError, match=named):
        LoraConfig(**kwargs)
