"""Splash attention: causal attention on TPUs that does not write its scores to memory.

The kernel is JAX's own, of the family of FlashAttention (Dao et al., 2022). The scores
of a block of queries and keys live in the memory of the core. `attend` is its oracle,
and serves whatever the kernel does not.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.execution import Execution

Splash: TypeAlias = Callable[[Array, Array, Array], Array]
#: Widths of a head that the kernel has been compiled with.
HEAD_DIMS = (64, 128)
#: Lanes of a TPU. Sequences are padded to a multiple of them, and shorter ones are left
#: to `attend`.
LANES = 128
#: Tokens of a block; the first that divides the padded sequence is taken.
BLOCKS = (512, 256, 128)


def splash_for(
    config: DecoderConfig, execution: Execution, time: int, dtype: Any
) -> Splash | None:
    """Return splash attention for texts from left to right, or None.

    None means that the execution asks for scores, or that the kernel does not serve: it
    knows no windows as the layers mix them, and its products would round float32.

    Args:
        config: Sizes of the model.
        execution: How the model runs.
        time: Tokens of a sequence.
        dtype: Type of the activations.

    >>> config = DecoderConfig.tiny(head_dim=64)
    >>> splash_for(config, Execution(), 512, jnp.bfloat16) is None
    True
    """
    serves = (
        execution.attention == "splash"
        and not any(config.sliding)
        and config.attention_softcap is None
        and config.head_dim in HEAD_DIMS
        and dtype == jnp.bfloat16
        and time >= LANES
    )
    if not serves:
        return None
    return partial(splash, scale=config.query_scale, execution=execution)


def splash(
    q: Float[Array, "*batch time heads head_dim"],
    k: Float[Array, "*batch time kv_heads head_dim"],
    v: Float[Array, "*batch time kv_heads head_dim"],
    *,
    scale: float,
    execution: Execution,
) -> Float[Array, "*batch time heads head_dim"]:
    """Return what `goracs_jax.models.attention.attend` returns for a causal mask.

    Args:
        q: Queries.
        k: Keys; their number of heads divides that of the queries.
        v: Values.
        scale: Factor of the scores.
        execution: The grid: each device works on its own examples and heads.

    Returns:
        The mean of the values for each query, weighted by attention.
    """
    fn = _one
    for _ in q.shape[:-3]:
        fn = jax.vmap(fn)
    return execution.by_head(fn, q.ndim, heads=k.shape[-2])(q * scale, k, v)


# The caller asks that float32 products are precise. A kernel of bfloat16 does not
# compile with that, so both of its passes are traced without.
_no_precision = partial(jax.default_matmul_precision, "default")


@jax.custom_vjp
def _one(q, k, v):
    with _no_precision():
        return _kernel(q, k, v)


def _one_and_kept(q, k, v):
    with _no_precision():
        return jax.vjp(_kernel, q, k, v)


def _one_backward(pull_back, d_mixed):
    with _no_precision():
        return pull_back(d_mixed)


_one.defvjp(_one_and_kept, _one_backward)


def _kernel(q, k, v):
    """Attend in one example: arrays [time, heads, head_dim]."""
    # Imported here, because only TPUs need it.
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    time, heads, _ = q.shape
    padded = -(-time // LANES) * LANES
    # Padding stands behind all tokens, so none of them sees it.
    rows = ((0, 0), (0, padded - time), (0, 0))
    q, k, v = (jnp.pad(jnp.swapaxes(x, 0, 1), rows) for x in (q, k, v))
    block = next(size for size in BLOCKS if padded % size == 0)
    sizes: Any = [block] * 8  # of both axes, in each kernel
    kernel: Any = kernels.make_splash_mha(
        kernels.MultiHeadMask([kernels.CausalMask((padded, padded))] * heads),
        block_sizes=kernels.BlockSizes(*sizes),
        head_shards=1,
        q_seq_shards=1,
    )
    return jnp.swapaxes(kernel(q, k, v), 0, 1)[:time]
