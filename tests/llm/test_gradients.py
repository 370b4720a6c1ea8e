import dataclasses
import logging

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from lora_examples import (
    F32,
    TINY,
    example_loss,
    loop_gradients,
    rows,
    some_tokens,
    trained,
)

from goracs_jax.errors import InputError, NumericalError
from goracs_jax.llm.gradients import example_scores, gradient_norms, lora_rows
from goracs_jax.llm.passes import map_batches
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.models.targets import Rules


@pytest.fixture(scope="module")
def model():
    return trained(Decoder(TINY, key=jax.random.key(0)))


@pytest.fixture(scope="module")
def tokens():
    return some_tokens()


@pytest.mark.parametrize("which", ["last_v_lora_b", "all_lora"])
def test_norms_are_those_of_a_loop(model, tokens, which):
    norms = gradient_norms(model, tokens, which=which, tokens_per_batch=64)
    assert norms.dtype == np.float32
    expected = [np.linalg.norm(g) for g in loop_gradients(model, tokens, which)]
    np.testing.assert_allclose(norms, expected, **F32)


def test_loss_and_error_come_with_the_norm(model, tokens):
    """The textbook, example by example, in float64."""
    scores = example_scores(model, tokens, tokens_per_batch=64)
    np.testing.assert_array_equal(
        scores.norm, gradient_norms(model, tokens, tokens_per_batch=64)
    )
    logits = jax.jit(lambda ids: model(ids))
    for i, (ids, labels) in enumerate(rows(tokens)):
        z = np.asarray(logits(ids)[:-1], np.float64)
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        at = np.flatnonzero(np.asarray(labels)[1:] >= 0)
        y = np.asarray(labels)[1:][at]
        errors = np.linalg.norm(p[at] - np.eye(TINY.vocab_size)[y], axis=1)
        np.testing.assert_allclose(scores.prediction_error[i], errors.mean(), **F32)
        np.testing.assert_allclose(scores.loss[i], -np.log(p[at, y]).mean(), **F32)


def test_norms_are_those_of_optax(model, tokens):
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    micro = optax.microbatching.micro_grad(
        lambda lora, ids, labels: example_loss(
            nnx.merge(graph, lora, frozen), ids[0], labels[0]
        ),
        batch_argnums=(1, 2),
        microbatch_size=1,
        metrics_fn=optax.tree.norm,
    )
    ids, labels = next(rows(tokens))
    stack = lambda x: jnp.stack([x, x[::-1]])
    _, aux = jax.jit(micro)(lora, stack(ids), stack(labels))
    both = ragged(stack(ids).tolist(), stack(labels).tolist())
    norms = gradient_norms(model, both, which="all_lora")
    np.testing.assert_allclose(norms, aux.metrics, **F32)


def test_batches_change_nothing(model, tokens):
    small = gradient_norms(model, tokens, tokens_per_batch=32)
    large = gradient_norms(model, tokens, tokens_per_batch=1024)
    np.testing.assert_allclose(small, large, **F32)


def test_a_fresh_adapter_has_a_gradient_in_b_alone(tokens):
    model = Decoder(TINY, key=jax.random.key(0))
    assert (gradient_norms(model, tokens) > 0).all()
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    loss = lambda lora: example_loss(
        nnx.merge(graph, lora, frozen), *next(rows(tokens))
    )
    for path, gradient in nnx.to_flat_state(jax.jit(jax.grad(loss))(lora)):
        assert bool(jnp.any(gradient[...])) == (path[-1] == "lora_b")


def test_no_gradient_goes_below_the_adapters(tokens):
    """With adapters in the last two of six layers, four are run forwards alone."""
    lora = LoraConfig(rules=Rules(targets=("q_proj", "down_proj"), layers=(4, 5)))
    config = dataclasses.replace(TINY, num_layers=6)
    deep = trained(Decoder(config, lora, key=jax.random.key(0)))
    norms = gradient_norms(deep, tokens, which="all_lora", tokens_per_batch=64)
    expected = [np.linalg.norm(g) for g in loop_gradients(deep, tokens, "all_lora")]
    np.testing.assert_allclose(norms, expected, **F32)
    parts = nnx.split(deep, nnx.LoRAParam, ...)
    ids = jnp.zeros((2, 8), jnp.int32)
    traced = jax.make_jaxpr(lambda ids: lora_rows("all_lora", 7, *parts, ids, ids)[0])
    loops = [(loop["length"], loop["reverse"]) for loop in scans(traced(ids).jaxpr)]
    assert (4, False) in loops
    assert all(length < 4 for length, backwards in loops if backwards)
    assert any(backwards for _, backwards in loops)


def scans(jaxpr):
    """Yield the parameters of all loops over layers."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            yield eqn.params
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            yield from scans(inner)


def test_the_second_call_compiles_nothing(model, tokens, caplog):
    for which in ("last_v_lora_b", "all_lora"):
        gradient_norms(model, tokens, which=which)
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            # Another adapter of the same shape, too.
            gradient_norms(trained(model), tokens, which=which)
        compiled = [r.getMessage() for r in caplog.records]
        assert not [m for m in compiled if "_scores" in m and "ompil" in m], compiled


def test_compiling_is_noticed(model, tokens, caplog):
    """The check above can fail: a new shape does compile."""
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        gradient_norms(model, tokens, tokens_per_batch=200)
    compiled = [r.getMessage() for r in caplog.records]
    assert [m for m in compiled if "_scores" in m and "ompil" in m]


def test_the_mapper_is_used(model, tokens):
    seen = []

    def mapper(fn, batches):
        seen.extend(batches)
        return map_batches(fn, batches)

    gradient_norms(model, tokens, mapper=mapper)
    assert sum(int((batch.rows >= 0).sum()) for batch in seen) == tokens.num_examples


def test_refuses(model, tokens):
    bare = Decoder(TINY, LoraConfig(targets=("q_proj",)), key=jax.random.key(0))
    with pytest.raises(InputError, match="needs an adapter on v_proj"):
        gradient_norms(bare, tokens)
    with pytest.raises(InputError, match="example 1 has token id 96"):
        gradient_norms(model, ragged([[96, 1]]))
    untied = DecoderConfig.tiny(tie_embeddings=False)
    broken = Decoder(untied, key=jax.random.key(0))
    broken.embed[...] = broken.embed[...].at[5].set(jnp.nan)
    with pytest.raises(NumericalError, match="norm of example 2 is nan"):
        gradient_norms(broken, ragged([[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]))


@pytest.mark.parametrize("column", range(3))
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_no_score_is_returned_that_is_not_finite(model, tokens, column, value):
    """A norm may be finite where the loss is not, so each is looked at."""
    table = np.ones((len(tokens.lengths), 3), np.float32)
    table[3, column] = value
    name = ("the gradient norm", "the loss", "the prediction error")[column]
    with pytest.raises(NumericalError, match=f"^{name} of example 4 is {value} .1 of"):
        example_scores(model, tokens, mapper=lambda run, batches: table)
