"""Which axis of a decoder's weights goes over which axis of the devices."""

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from goracs_jax.mesh import DATA, MODEL, spread
from goracs_jax.models.decoder import Decoder

# By the end of a weight's path. Features of heads and of the MLP go over `model`, so
# that a layer needs one sum over it after attention and one after the MLP (Megatron-LM,
# Shoeybi et al., 2019). The other axis goes over `data`, and a layer is gathered over
# it when it is its turn (FSDP). Norms, biases and adapters are small and everywhere.
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
    """The same model with its weights cut up over a grid of devices.

    Args:
        model: The model, whole on one device or in the host's memory.
        mesh: The grid; see `goracs_jax.mesh.model_mesh`.

    Returns:
        The model; what is computed with it runs on all devices.
    """
    graph, state = nnx.split(model)
    flat = [
        (path, leaf.replace(spread(leaf[...], mesh, _spec(path, leaf.ndim))))
        for path, leaf in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def mesh_of(model: Decoder) -> Mesh | None:
    """The grid that a model is spread over, if it is."""
    sharding = jax.tree.leaves(nnx.state(model.norm))[0].sharding
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) else None


def data_devices(model: Decoder) -> int:
    """Over how many devices the rows of a batch go."""
    mesh = mesh_of(model)
    return mesh.shape[DATA] if mesh else 1


def _spec(path: tuple, ndim: int) -> PartitionSpec:
    rule = RULES.get(".".join(map(str, path[-2:]))) or RULES.get(str(path[-1]), ())
    # The axis of stacked layers is in front: a device has its part of each.
    return PartitionSpec(*[None] * (ndim - len(rule)), *rule)
