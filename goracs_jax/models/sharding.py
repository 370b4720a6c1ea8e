"""The sharding of a decoder: which axis of a weight goes over which axis of a grid."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from goracs_jax.mesh import DATA, MODEL, fitted, spread
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.lora import DEFAULT_LORA, LoraConfig

# Rules by the end of a weight's path. Features of heads and of the MLP go over `model`,
# so that a layer needs one sum over it after attention and one after the MLP
# (Megatron-LM, Shoeybi et al., 2019). The other axis goes over `data`, and a layer is
# gathered over it when it runs (FSDP). Norms, biases and adapters are small and on
# every device.
INTO = (DATA, MODEL)  # kernels [in, out] into heads or the MLP
OUT_OF = (MODEL, DATA)
RULES = {
    "embed": (MODEL, DATA),
    "head": (MODEL, DATA),
    "q_proj.kernel": INTO,
    "k_proj.kernel": INTO,
    "v_proj.kernel": INTO,
    "gate_proj.kernel": INTO,
    "up_proj.kernel": INTO,
    "o_proj.kernel": OUT_OF,
    "down_proj.kernel": OUT_OF,
}


def spread_decoder(model: Decoder, mesh: Mesh) -> Decoder:
    """Cut up the weights of a decoder over a grid of devices.

    Args:
        model: The model, whole on one device or in the host's memory.
        mesh: The grid; see `goracs_jax.mesh.model_mesh`.

    Returns:
        The same model; what is computed with it runs on all devices of the grid.
    """
    return _each_weight(model, lambda path, x: spread(x, mesh, _spec(path, x.ndim)))


def abstract_decoder(
    config: DecoderConfig,
    mesh: Mesh,
    *,
    lora: LoraConfig = DEFAULT_LORA,
    dtype: Any = jnp.float32,
) -> Decoder:
    """Make a decoder of the shapes and shardings of its weights, without their values.

    With it a program can be lowered and compiled for devices that are not there.

    Args:
        config: Sizes of the model.
        mesh: The grid, for instance of the devices of a topology.
        lora: Adapters to put in place.
        dtype: The type of the frozen weights.

    >>> from goracs_jax.mesh import model_mesh
    >>> model = abstract_decoder(DecoderConfig.tiny(), model_mesh(jax.devices()))
    >>> model.norm.weight.shape
    (32,)
    """
    build = lambda: Decoder(config, lora, key=jax.random.key(0), dtype=dtype)

    def abstract(path: tuple, x: Any) -> jax.ShapeDtypeStruct:
        sharding = fitted(x.shape, mesh, _spec(path, len(x.shape)))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return _each_weight(nnx.eval_shape(build), abstract)


def mesh_of(model: Decoder) -> Mesh | None:
    """Return the grid that a model is spread over, or None."""
    sharding = jax.tree.leaves(nnx.state(model.norm))[0].sharding
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) else None


def data_devices(model: Decoder) -> int:
    """Return the number of devices over which the rows of a batch go."""
    mesh = mesh_of(model)
    return mesh.shape[DATA] if mesh else 1


def _each_weight(model: Decoder, change: Callable[[tuple, Any], Any]) -> Decoder:
    graph, state = nnx.split(model)
    flat = [
        (path, leaf.replace(change(path, leaf.get_value())))
        for path, leaf in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def _spec(path: tuple, ndim: int) -> PartitionSpec:
    rule = RULES.get(".".join(map(str, path[-2:]))) or RULES.get(str(path[-1]), ())
    # The axis of stacked layers comes first and stays whole: every device has its part
    # of each layer.
    return PartitionSpec(*[None] * (ndim - len(rule)), *rule)
