"""flax, seen in 0.12.8."""

import jax
import jax.numpy as jnp
import pytest
from flax import errors, nnx


@pytest.mark.parametrize("fresh", [False, True])
def test_variables_of_an_outer_trace_cannot_change(fresh):
    """flax 0.12.8: under vmap, dropout refuses a state from outside.

    So `gradient_rows` (goracs_jax/gradients/rows.py) maps it to new leaves inside the
    loss of one example.
    """
    model = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)

    @jax.jit
    def losses(state, xs):
        def one(x):
            inner = jax.tree.map(lambda leaf: leaf, state) if fresh else state
            return jnp.sum(nnx.merge(graph, inner)(x))

        return jax.vmap(one)(xs)

    if fresh:
        assert losses(state, jnp.ones((2, 3))).shape == (2,)
    else:
        with pytest.raises(errors.TraceContextError):
            losses(state, jnp.ones((2, 3)))
