"""How weights are gathered; tests/test_sharding.py runs whole passes on grids."""

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec

from goracs_jax.mesh import DATA, MODEL
from goracs_jax.models.execution import Execution


def test_products_wait_for_whole_weights():
    """No CPU spreads a product over the parts of a weight; TPUs would."""
    execution = Execution(mesh=AbstractMesh((4, 2), (DATA, MODEL)))
    layer = {"mlp": {"up_proj": {"kernel": jnp.ones((8, 8))}}}
    traced = jax.make_jaxpr(execution.gathered)(layer)
    gather, barrier = traced.eqns
    assert gather.params["sharding"].spec == PartitionSpec(None, MODEL)
    assert barrier.primitive.name == "optimization_barrier"
    assert barrier.invars == gather.outvars
    assert traced.jaxpr.outvars == barrier.outvars
