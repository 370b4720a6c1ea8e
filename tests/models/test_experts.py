"""Mixtures of experts, against loops over tokens and over experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from goracs_jax.errors import InputError
from goracs_jax.llm.gradients import gradient_norms
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.models.config import MixtureConfig
from goracs_jax.models.experts import BLOCKS, Blocks, Experts
from goracs_jax.models.targets import ALL_LINEAR, Rules

KEY = jax.random.key(0)
# Sums of float32 in another order.
F32 = {"rtol": 2e-5, "atol": 1e-6}
run = nnx.jit(lambda module, x: module(x))


def layer(experts=5, active=2, *, normalised=True, act="silu"):
    mixture = MixtureConfig(experts=experts, active=active, normalised=normalised)
    config = DecoderConfig.tiny(activation=act)
    return Experts(config, mixture, rngs=nnx.Rngs(0))


def states(*shape):
    return jax.random.normal(jax.random.key(3), (*shape, 32))


def by_token(module, x):
    """Every expert of every token by itself, in float64."""
    wide = lambda kernel: np.asarray(kernel[...], np.float64)
    act = {
        "silu": lambda a: a / (1 + np.exp(-a)),
        "gelu_tanh": lambda a: np.asarray(jax.nn.gelu(jnp.asarray(a))),
    }[module.activation]
    gate, up, down = (
        wide(m.kernel) for m in (module.gate_proj, module.up_proj, module.down_proj)
    )
    out = np.zeros(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        token = np.asarray(x[place], np.float64)
        logits = token @ wide(module.router.kernel)
        shares = np.exp(logits) / np.exp(logits).sum()
        chosen = sorted(range(len(shares)), key=lambda e: -shares[e])
        chosen = chosen[: module.mixture.active]
        total = shares[chosen].sum() if module.mixture.normalised else 1.0
        for e in chosen:
            inner = act(token @ gate[e]) * (token @ up[e])
            out[place] += shares[e] / total * (inner @ down[e])
    return out


def dense(module, x):
    """The same as one formula, which JAX can differentiate: all experts, masked."""
    shares = jax.nn.softmax(x @ module.router.kernel[...], axis=-1)
    kth = jnp.sort(shares, axis=-1)[..., -module.mixture.active, None]
    weights = jnp.where(shares >= kth, shares, 0)
    if module.mixture.normalised:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    gate, up, down = (
        m.kernel[...] for m in (module.gate_proj, module.up_proj, module.down_proj)
    )
    inner = jax.nn.silu(jnp.einsum("...i,eij->...ej", x, gate))
    inner = inner * jnp.einsum("...i,eij->...ej", x, up)
    return jnp.einsum("...e,...ej,eji->...i", weights, inner, down)


@pytest.mark.parametrize(
    ("experts", "active", "normalised", "act"),
    [(5, 2, True, "silu"), (3, 3, False, "gelu_tanh"), (8, 1, False, "silu")],
)
@pytest.mark.parametrize("shape", [(7,), (2, 40), (2, 3, 5)])
def test_outputs_are_the_loop(experts, active, normalised, act, shape):
    module, x = layer(experts, active, normalised=normalised, act=act), states(*shape)
    np.testing.assert_allclose(run(module, x), by_token(module, x), **F32)


def test_experts_that_nobody_or_everybody_chooses():
    module, x = layer(), jnp.abs(states(300))
    kernel = jnp.zeros((32, 5)).at[:, 3].set(1.0).at[:, 1].set(0.5)
    module.router.kernel[...] = kernel
    assert len(x) > BLOCKS[1]  # more than one block of the same expert
    np.testing.assert_allclose(run(module, x), by_token(module, x), **F32)


@pytest.mark.parametrize("normalised", [True, False])
def test_slopes_are_those_of_the_formula(normalised):
    """Of tokens, also through the router; one example at a time and in a batch."""
    module, x = layer(normalised=normalised), states(3, 20)
    toward = states(3, 20)[..., ::-1]
    slope = lambda fn: jax.grad(lambda x, y: jnp.sum(jnp.sin(fn(module, x)) * y))
    expected = jax.jit(jax.vmap(slope(dense)))(x, toward)
    ours = slope(lambda module, x: module(x))
    by_example = jax.jit(jax.vmap(ours))(x, toward)
    np.testing.assert_allclose(by_example, expected, **F32)
    together = jax.jit(ours)
    np.testing.assert_allclose(together(x, toward), expected, **F32)
    np.testing.assert_allclose(together(x[1], toward[1]), expected[1], **F32)


def test_gradients_of_experts_are_refused():
    module = layer()
    total = lambda module: jnp.sum(module(states(4)))
    with pytest.raises(NotImplementedError, match="experts are frozen"):
        nnx.grad(total)(module)


def test_every_choice_is_in_one_block():
    chosen = jnp.array([[0, 2], [2, 0], [2, 4], [4, 2]] * 5)
    blocks = Blocks.of(chosen, 5)
    counts = blocks.run(
        lambda block, y: block.put(y, block.expert + jnp.ones(blocks.size)),
        jnp.zeros(chosen.shape),
    )
    np.testing.assert_array_equal(counts, chosen + 1)
    assert int(blocks.ends[-1]) == 2 + 3 + 2  # of eight: 10, 20 and 10 choices


def model(experts=4, layers=2, **changes):
    mixture = MixtureConfig(experts=experts, active=2)
    config = DecoderConfig.tiny(mixture=mixture, num_layers=layers, **changes)
    return Decoder(config, LoraConfig(r=2), key=KEY)


def test_programs_grow_neither_with_depth_nor_with_experts():
    """The shapes alone differ."""

    def operations(model):
        ids = jnp.zeros((2, 3), jnp.int32)
        return str(jax.make_jaxpr(lambda ids: model(ids))(ids)).count(" = ")

    # Where no two axes are equal: what is printed twice is shared by equal shapes.
    few, many = model(experts=5, layers=3), model(experts=48, layers=7)
    assert operations(few) == operations(many)


@pytest.mark.parametrize("which", ["last_v_lora_b", "all_lora"])
def test_gradient_norms_do_not_depend_on_the_batch(which):
    """Texts are routed together, and each has the norm that it has alone."""
    decoder = model()
    state = nnx.state(decoder, nnx.LoRAParam)
    noise = lambda w: w + 0.1 * jax.random.normal(jax.random.key(1), w.shape)
    nnx.update(decoder, jax.tree.map(noise, state))
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 96, n).tolist() for n in (5, 9, 16, 12)]
    norms = lambda rows: gradient_norms(decoder, ragged(rows, rows), which=which)
    alone = np.concatenate([norms([row]) for row in rows])
    np.testing.assert_allclose(norms(rows), alone, rtol=1e-4)


def test_adapters_of_experts_are_refused():
    config = model().config
    message = "adapters of experts .* are not supported"
    for lora in (
        LoraConfig(targets=("q_proj", "up_proj")),
        LoraConfig(rules=Rules(targets=ALL_LINEAR)),
        LoraConfig(rules=Rules(targets=r".*layers\.1\..*_proj")),
    ):
        with pytest.raises(InputError, match=message):
            Decoder(config, lora, key=KEY)
    rules = Rules(targets=("q_proj", "o_proj"))
    assert Decoder(config, LoraConfig(rules=rules), key=KEY).lora.targets == (
        *("o_proj", "q_proj"),
    )
