"""How weights are gathered; tests/test_sharding.py runs whole passes on grids."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from goracs_jax.llm.loss import example_loss
from goracs_jax.mesh import DATA, MODEL
from goracs_jax.models import Decoder, DecoderConfig
from goracs_jax.models.decoder import with_execution
from goracs_jax.models.execution import Execution


def test_products_wait_for_whole_weights():
    """No CPU spreads a product over the parts of a weight; TPUs would."""
    execution = Execution(mesh=_grid(4, 2))
    layer = {"mlp": {"up_proj": {"kernel": jnp.ones((8, 8))}}}
    traced = jax.make_jaxpr(execution.gathered)(layer)
    gather, barrier = traced.eqns
    assert gather.params["sharding"].spec == PartitionSpec(None, MODEL)
    assert barrier.primitive.name == "optimization_barrier"
    assert barrier.invars == gather.outvars
    assert traced.jaxpr.outvars == barrier.outvars


@pytest.mark.parametrize("tokens", [None, jnp.array([3, 5])], ids=["all", "two"])
def test_logits_wait_for_whole_rows_of_the_head(tokens):
    model = _spread_decoder()
    hidden = jnp.ones((8, model.config.hidden_size))
    traced = jax.make_jaxpr(lambda h: model.logits(h, tokens))(hidden)
    assert _rows_behind_barriers(traced) == [(2 if tokens is not None else 96, 32)]


def test_a_loss_waits_for_its_block_unless_it_is_differentiated():
    """With the slope a block has two products, and XLA gathers it by itself."""
    model = _spread_decoder()
    loss = example_loss(model)
    states, labels = jnp.ones((4, 32)), jnp.arange(4)
    alone = jax.make_jaxpr(lambda h: loss(h, labels, None).loss)(states)
    sloped = jax.make_jaxpr(jax.grad(lambda h: loss(h, labels, None).loss))(states)
    assert _rows_behind_barriers(alone) == [(96, 32)]
    assert _rows_behind_barriers(sloped) == []


def _spread_decoder() -> Decoder:
    model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    return with_execution(model, mesh=_grid(4, 1))


def _grid(*shape: int) -> AbstractMesh:
    # Newer JAX makes axes Explicit unless told otherwise.
    return AbstractMesh(shape, (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)


def _rows_behind_barriers(jaxpr) -> list[tuple[int, ...]]:
    """Return the shapes that go through a barrier, also in programs within."""
    found = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "optimization_barrier":
            found += [x.aval.shape for x in eqn.outvars]
        for inner in jaxprs_in_params(eqn.params):
            found += _rows_behind_barriers(inner)
    return found
