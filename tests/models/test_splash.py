"""Splash attention against `attend`, its kernel in interpret mode."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu import splash_attention

from goracs_jax.llm.gradients import score_pass
from goracs_jax.llm.profile import execution_on
from goracs_jax.mesh import DATA
from goracs_jax.models import Decoder, DecoderConfig
from goracs_jax.models.attention import attend, visible_pairs
from goracs_jax.models.decoder import with_execution
from goracs_jax.models.execution import Execution
from goracs_jax.models.splash import splash, splash_for

SPLASH = Execution(attention="splash")


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    make = partial(splash_attention.make_splash_mha, interpret=True)
    monkeypatch.setattr(splash_attention, "make_splash_mha", make)


def test_splash_attention_and_its_gradients_are_those_of_the_scores():
    time = 300  # three blocks of 128 tokens, the last with padding
    keys = jax.random.split(jax.random.key(0), 4)
    q, weight = (jax.random.normal(key, (2, time, 2, 64)) for key in keys[:2])
    k, v = (jax.random.normal(key, (2, time, 1, 64)) for key in keys[2:])
    visible = visible_pairs(jnp.arange(time), jnp.arange(time))

    def run(attention):
        def total(qkv, weight):
            mixed = attention(*qkv)
            return jnp.sum(weight * mixed), mixed

        gradient = jax.value_and_grad(total, has_aux=True)
        return jax.vmap(gradient, spmd_axis_name=DATA)((q, k, v), weight)

    (_, ours), d_ours = run(partial(splash, scale=0.3, execution=SPLASH))
    (_, theirs), d_theirs = run(partial(attend, visible=visible, scale=0.3))
    # Sums of up to 300 terms of size ten in float32, in another order.
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(ours, theirs)
    jax.tree.map(close, d_ours, d_theirs)


def test_the_kernels_do_not_take_the_precision_of_the_caller():
    qkv = jnp.zeros((3, 128, 1, 64), jnp.bfloat16)
    run = partial(splash, scale=1.0, execution=SPLASH)
    gradient = jax.grad(lambda qkv: jnp.sum(run(*qkv).astype(jnp.float32)))
    with jax.default_matmul_precision("float32"):
        text = str(jax.make_jaxpr(gradient)(qkv))
    assert "dot_general" in text
    assert "HIGHEST" not in text


@pytest.mark.parametrize("which", ["last_v_lora_b", "all_lora"])
def test_gradient_norms_agree(which):
    config = DecoderConfig.tiny(num_heads=2, num_kv_heads=1, head_dim=64)
    model = Decoder(config, key=jax.random.key(0), dtype=jnp.bfloat16)
    ids = np.asarray(jax.random.randint(jax.random.key(1), (2, 128), 0, 96), np.int32)

    def scores(**changes):
        changed = with_execution(model, **changes)
        run = score_pass(changed, which, most=128)
        traced = run.fn.trace(*run.given, ids, ids)
        return np.asarray(run(ids, ids)), str(traced.jaxpr)

    theirs, _ = scores()
    ours, text = scores(attention="splash")
    assert "splash" in text
    # A few roundings to bfloat16, of 2^-9 each.
    np.testing.assert_allclose(ours, theirs, rtol=1e-2)


@pytest.mark.parametrize(
    ("changes", "time", "dtype", "execution"),
    [
        ({}, 512, jnp.bfloat16, Execution()),
        ({}, 64, jnp.bfloat16, SPLASH),
        ({}, 512, jnp.float32, SPLASH),
        ({"head_dim": 80}, 512, jnp.bfloat16, SPLASH),
        ({"attention_softcap": 30.0}, 512, jnp.bfloat16, SPLASH),
        ({"sliding": (True, False), "window": 4}, 512, jnp.bfloat16, SPLASH),
    ],
)
def test_scores_serve_where_the_kernel_does_not(changes, time, dtype, execution):
    good = DecoderConfig.tiny(head_dim=64)
    assert splash_for(good, SPLASH, 512, jnp.bfloat16) is not None
    config = DecoderConfig.tiny(**{"head_dim": 64, **changes})
    assert splash_for(config, execution, time, dtype) is None


def test_a_cpu_keeps_its_scores():
    changes = execution_on(jax.devices("cpu")[0])
    assert Execution(**changes) == Execution()
