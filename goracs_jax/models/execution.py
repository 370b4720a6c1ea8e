"""How a decoder runs: its grid of devices, what it keeps, how much it takes at a time.

None of this changes what is computed, except for rounding. An `Execution` is a static
part of the model, so that every program that is made from the model follows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Array, Float, PyTree

from goracs_jax.choices import AttentionKind, Remat
from goracs_jax.mesh import DATA, EVERYWHERE, MODEL, fitted

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

BY_EXAMPLE = PartitionSpec(DATA)

#: Rows of the vocabulary whose logits are in memory at one time: 8 MiB for 2,048
#: tokens, which stay in the cache of a CPU.
VOCAB_BLOCK = 1024


def weight_spec(path: tuple, ndim: int) -> PartitionSpec:
    """Return the mesh axis that each axis of a weight goes over.

    Args:
        path: Where the weight is in the decoder.
        ndim: The number of its axes; one more where layers are stacked.

    >>> weight_spec(("layers", "mlp", "up_proj", "kernel"), 3)
    P(None, 'data', 'model')
    """
    rule = RULES.get(".".join(map(str, path[-2:]))) or RULES.get(str(path[-1]), ())
    # The axis of stacked layers comes first and stays whole: every device has its part
    # of each layer.
    return PartitionSpec(*[None] * (ndim - len(rule)), *rule)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the passes of a decoder run.

    Examples go over the axis `data` of the grid in every activation. A weight is whole
    over this axis only while its layer runs.

    Args:
        mesh: The grid that the weights are spread over; None means one device.
        remat: What a backward pass keeps of each layer: the products of linear layers,
            or the input alone, from which it computes all else again.
        vocab_block: Rows of the vocabulary whose logits are in memory at one time.
        attention: Whether scores are whole in memory, or stay in the kernel of
            `goracs_jax.models.splash`, which is for TPUs, wherever that serves.
        tokens: Padded tokens of a batch on each device; None lets every pass choose.
        shapes: The most shapes of batches; None means as many as keep padding low.

    >>> Execution().remat
    'products'
    """

    mesh: Mesh | AbstractMesh | None = None
    remat: Remat = "products"
    vocab_block: int = VOCAB_BLOCK
    attention: AttentionKind = "scores"
    tokens: int | None = None
    shapes: int | None = None

    @property
    def grid(self) -> Mesh | None:
        """The mesh, if its devices are known."""
        return self.mesh if isinstance(self.mesh, Mesh) else None

    @property
    def runs_whole(self) -> bool:
        """Whether the last layer runs at all tokens, even if few are asked for.

        The kernel of attention is for whole texts, and a TPU would keep the keys in
        float32 where few queries look at them.
        """
        return self.attention == "splash"

    @property
    def data_devices(self) -> int:
        """The number of devices over which the rows of a batch go."""
        return 1 if self.mesh is None else self.mesh.shape[DATA]

    def by_example(self, x: Float[Array, "*batch time dim"]) -> Array:
        """Spread the examples of an activation over `data`, and nothing else.

        A single example has no such axis: `vmap` with spmd_axis_name="data" adds it.
        """
        return self._constrain(x, PartitionSpec(*[DATA] * (x.ndim - 2)))

    def split(self, tree: PyTree, axis: int = 0) -> PyTree:
        """Spread the examples of all arrays of a tree over `data`, and nothing else.

        Args:
            tree: Arrays.
            axis: The axis of the examples.
        """
        spec = PartitionSpec(*[None] * axis, DATA)
        return jax.tree.map(lambda x: self._constrain(x, spec), tree)

    def vmap(self, fn: Callable, in_axes: Sequence[int | None]) -> Callable:
        """Map a function over examples, on each device over its own.

        It is for operations that XLA does not spread over devices, such as `top_k`.

        Args:
            fn: A function of arrays of one example.
            in_axes: For each argument 0, or None if it is the same for all examples.
        """
        mapped = jax.vmap(fn, in_axes=tuple(in_axes))
        if self.mesh is None or self.mesh.size == 1:
            return mapped
        return jax.shard_map(
            mapped,
            mesh=self.mesh,
            in_specs=tuple(EVERYWHERE if a is None else BY_EXAMPLE for a in in_axes),
            out_specs=BY_EXAMPLE,
            axis_names={DATA},
        )

    def by_token(self, fn: Callable, tokens: int) -> Callable:
        """Map a function of weights and of tokens, on each device over its own tokens.

        Args:
            fn: A function of weights, which are whole over `data`, and of arrays
                [tokens, ...], to arrays of the same kind.
            tokens: Their number. Where the devices do not divide it, each takes all.
        """
        if self.data_devices == 1 or tokens % self.data_devices:
            return fn
        return lambda weights, *arrays: jax.shard_map(
            fn,
            mesh=self.mesh,
            in_specs=(EVERYWHERE, *[BY_EXAMPLE] * len(arrays)),
            out_specs=BY_EXAMPLE,
            axis_names={DATA},
            # A loop's state starts the same on all devices and ends differently.
            check_vma=False,
        )(weights, *arrays)

    def by_head(self, fn: Callable, ndim: int, heads: int) -> Callable:
        """Map a function over examples and heads, on each device over its own.

        It is for kernels, which XLA does not spread over devices.

        Args:
            fn: A function of arrays [*batch, time, heads, head_dim], to one more.
            ndim: The number of axes of these arrays.
            heads: The smallest number of heads among them.
        """
        if self.mesh is None or self.mesh.size == 1:
            return fn
        over = MODEL if heads % self.mesh.shape[MODEL] == 0 else None
        spec = PartitionSpec(*[DATA] * (ndim - 3), None, over, None)
        # A kernel does not say over which axes its results differ.
        return jax.shard_map(
            fn, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False
        )

    def gathered(self, state: PyTree) -> PyTree:
        """Gather the weights of one layer over `data`; each keeps its part of `model`.

        Args:
            state: Weights without the axis of layers.
        """
        whole = lambda axis: None if axis == DATA else axis

        def gather(path: tuple, w: Array) -> Array:
            keys = tuple(key.key for key in path if hasattr(key, "key"))
            spec = weight_spec(keys, w.ndim)
            return self._constrain(w, PartitionSpec(*map(whole, spec)))

        if self.mesh is None or self.mesh.size == 1:
            return state
        # The barrier keeps XLA from spreading a product over the parts of its weight as
        # they arrive: it would read and write all activations once for each part.
        whole_layer = jax.tree_util.tree_map_with_path(gather, state)
        return jax.lax.optimization_barrier(whole_layer)

    def gathered_rows(self, rows: Float[Array, "tokens dim"]) -> Array:
        """Gather rows of the output head, as `gathered` gathers a layer."""
        return self.gathered({"head": rows})["head"]

    def everywhere(self, tree: PyTree) -> PyTree:
        """Put sums over examples on every device."""
        return jax.tree.map(lambda x: self._constrain(x, EVERYWHERE), tree)

    def _constrain(self, x: Array, spec: PartitionSpec) -> Array:
        if self.mesh is None or self.mesh.size == 1:
            return x
        return jax.lax.with_sharding_constraint(x, fitted(x.shape, self.mesh, spec))


ONE_DEVICE = Execution()
