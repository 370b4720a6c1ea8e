"""Decoders on a grid of devices: spread over it, or as shapes for it alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from goracs_jax.mesh import fitted, spread
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.decoder import Decoder, with_execution
from goracs_jax.models.execution import weight_spec
from goracs_jax.models.lora import DEFAULT_LORA, LoraConfig


def spread_decoder(model: Decoder, mesh: Mesh) -> Decoder:
    """Cut up the weights of a decoder over a grid of devices.

    Args:
        model: The model, whole on one device or in the host's memory.
        mesh: The grid; see `goracs_jax.mesh.model_mesh`.

    Returns:
        The same model; what is computed with it runs on all devices of the grid.
    """
    spread_out = lambda path, x: spread(x, mesh, weight_spec(path, x.ndim))
    return with_execution(_each_weight(model, spread_out), mesh=mesh)


def abstract_decoder(
    config: DecoderConfig,
    mesh: Mesh | None,
    *,
    lora: LoraConfig = DEFAULT_LORA,
    dtype: Any = jnp.float32,
) -> Decoder:
    """Make a decoder of the shapes and shardings of its weights, without their values.

    With it a program can be lowered and compiled for devices that are not there.

    Args:
        config: Sizes of the model.
        mesh: The grid, for instance of the devices of a topology; None for one device.
        lora: Adapters to put in place.
        dtype: The type of the frozen weights.

    >>> from goracs_jax.mesh import model_mesh
    >>> model = abstract_decoder(DecoderConfig.tiny(), model_mesh(jax.devices()))
    >>> model.norm.weight.shape
    (32,)
    """
    build = lambda: Decoder(config, lora, key=jax.random.key(0), dtype=dtype)

    def abstract(path: tuple, x: Any) -> jax.ShapeDtypeStruct:
        spec = weight_spec(path, len(x.shape))
        sharding = None if mesh is None else fitted(x.shape, mesh, spec)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return with_execution(_each_weight(nnx.eval_shape(build), abstract), mesh=mesh)


def _each_weight(model: Decoder, change: Callable[[tuple, Any], Any]) -> Decoder:
    graph, state = nnx.split(model)
    flat = [
        (path, leaf.replace(change(path, leaf.get_value())))
        for path, leaf in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))
