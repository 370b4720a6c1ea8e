"""Sizes of a decoder's weights, on one device of a grid."""

import math
from collections.abc import Mapping
from functools import cache
from itertools import permutations
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from goracs_jax.choices import AttentionKind, Remat
from goracs_jax.mesh import DATA, MODEL, fitted
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.execution import VOCAB_BLOCK, Execution, weight_spec
from goracs_jax.models.lora import LoraConfig
from goracs_jax.models.splash import LANES, splash_for


class Placement(NamedTuple):
    """How a pass lies on its devices, as far as its sizes depend on it.

    Args:
        data: Devices over which examples go.
        model: Devices that share one copy of the model.
        dtype: The type of the frozen weights and the activations.
        remat: What a backward pass keeps.
        vocab_block: Rows of the vocabulary whose logits are in memory at one time.
        attention: Whether scores are in memory, where a kernel could do without.
        lanes: `LANES` for a TPU, which pads one axis of an array to a multiple of it; 1
            for other devices, which pad nothing.
        matrix_unit: As in `goracs_jax.devices.DeviceKind`.
    """

    data: int = 1
    model: int = 1
    dtype: str = "bfloat16"
    remat: Remat = "products"
    vocab_block: int = VOCAB_BLOCK
    attention: AttentionKind = "scores"
    lanes: int = LANES
    matrix_unit: int = 128

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the activations."""
        return jnp.dtype(self.dtype).itemsize

    def splash(self, config: DecoderConfig, length: int) -> bool:
        """Tell whether causal attention of texts of a length runs in the kernel."""
        execution = Execution(attention=self.attention)
        return bool(splash_for(config, execution, length, jnp.dtype(self.dtype)))


class Weights(NamedTuple):
    """Bytes of a decoder's weights on one device, by part."""

    layers: int
    tables: int  # embedding and norms
    head: int  # 0 where the embedding is the head
    adapters: int  # all that is trained, tables of the vocabulary too
    layer: int  # one layer, whole over `data`
    logits: int  # what the logits are computed with, head or embedding, whole over it


@cache
def weight_bytes(
    config: DecoderConfig, lora: LoraConfig, placement: Placement
) -> Weights:
    """Count the bytes of a decoder's weights on one device of a grid.

    Args:
        config: Sizes of the decoder.
        lora: The adapters.
        placement: How they lie on the devices.

    >>> config, lora = DecoderConfig.tiny(), LoraConfig()
    >>> one = weight_bytes(config, lora, Placement())
    >>> two = weight_bytes(config, lora, Placement(data=2))
    >>> one.tables > two.tables, one.adapters == two.adapters
    (True, True)
    """
    mesh = AbstractMesh((placement.data, placement.model), (DATA, MODEL))
    gathered = AbstractMesh((1, placement.model), (DATA, MODEL))
    build = lambda: Decoder(config, lora, key=jax.random.key(0), dtype=placement.dtype)
    found = dict.fromkeys(Weights._fields, 0)
    for path, leaf in nnx.to_flat_state(nnx.state(nnx.eval_shape(build))):
        x = leaf.get_value()
        spec = weight_spec(path, len(x.shape))
        size = lambda mesh, x=x, spec=spec: _local(x, mesh, spec, placement.lanes)
        if isinstance(leaf, nnx.LoRAParam):
            found["adapters"] += size(mesh)
        elif path[0] == "layers":
            found["layers"] += size(mesh)
            found["layer"] += size(gathered) // config.num_layers
        else:
            found["head" if path[0] == "head" else "tables"] += size(mesh)
            if path[0] == ("embed" if config.tie_embeddings else "head"):
                found["logits"] = size(gathered)
    return Weights(**found)


def _local(
    x: jax.ShapeDtypeStruct, mesh: AbstractMesh, spec: PartitionSpec, lanes: int
) -> int:
    """Count the bytes of a device's part of an array."""
    local = fitted(x.shape, mesh, spec).shard_shape(x.shape)
    itemsize = jnp.dtype(x.dtype).itemsize
    return round(math.prod(local) * _waste(local, lanes)) * itemsize


def _waste(shape: tuple[int, ...], lanes: int) -> float:
    """Return how many times its numbers an array takes.

    A TPU pads one axis to its lanes and one to up to eight rows of them, and chooses
    the two that waste the least.
    """
    if lanes == 1:
        return 1.0
    ratio = lambda axis, step: -(-axis // step) * step / axis
    few = lambda axis: min(8, 1 << (axis - 1).bit_length())
    wastes = (ratio(a, few(a)) * ratio(b, lanes) for a, b in permutations(shape, 2))
    return min(wastes, default=1.0)


def linear_sizes(config: DecoderConfig) -> Mapping[str, tuple[int, int]]:
    """Return the widths of a layer's linear layers, in and out, by their names.

    Those of the MLP are of one expert where a layer has several.

    >>> linear_sizes(DecoderConfig.tiny())["down_proj"]
    (48, 32)
    """
    c = config
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    dim, mlp = c.hidden_size, c.intermediate_size
    return {
        "q_proj": (dim, queries),
        "k_proj": (dim, keys),
        "v_proj": (dim, keys),
        "o_proj": (queries, dim),
        "gate_proj": (dim, mlp),
        "up_proj": (dim, mlp),
        "down_proj": (mlp, dim),
    }


def trained_sizes(config: DecoderConfig, lora: LoraConfig) -> tuple[int, int]:
    """Count the numbers that an adapter trains, in layers and in tables.

    Args:
        config: Sizes of the decoder.
        lora: The adapters, resolved. Smaller ranks are padded to the largest.

    >>> trained_sizes(DecoderConfig.tiny(), LoraConfig(r=2, tables=("embed",)))
    (448, 3072)
    """
    sizes = linear_sizes(config)
    vectors = lora.bias + lora.dora  # as long as the outputs of a layer
    layer = sum(
        lora.width(name) * sum(sizes[name]) + vectors * sizes[name][1]
        for name in lora.targets
    )
    rows = len(lora.tables) * config.vocab_size + sum(len(i) for _, i in lora.tokens)
    return config.num_layers * layer, rows * config.hidden_size
