r"""A mixture of experts: each token goes through the MLPs that its router chooses.

    y = sum over the k experts of largest p_e of  w_e MLP_e(x),    p = softmax(x W)

where w_e is p_e, or p_e divided by the sum over these k (Shazeer et al., ICLR 2017;
Mixtral of Experts, Jiang et al., 2024). No token is dropped, however many choose the
same expert. The loss that balances experts in pre-training is no part of any loss here.

Tokens are sorted by expert and run in blocks, each of one expert, in a loop that is as
long as they need: its work grows with k, and its program neither with k nor with the
number of experts. Experts are frozen, so the backward pass has the gradients of tokens
and router alone; it computes the products before the activation again. Under `vmap` the
tokens of all examples are sorted together, so that a batch reads each expert once. On
CPUs, `jax.lax.ragged_dot` would become masked products of all experts with all rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Float32, Int

from goracs_jax.models.config import DecoderConfig, MixtureConfig
from goracs_jax.models.execution import ONE_DEVICE, Execution
from goracs_jax.models.layers import ACTIVATIONS
from goracs_jax.models.lora import Linear, product

#: The least and the most tokens of a block.
BLOCKS = (8, 256)


class Kernels(NamedTuple):
    """The weights of the experts of one layer, each [experts, in, out]."""

    gate: Float[Array, "experts dim mlp"]
    up: Float[Array, "experts dim mlp"]
    down: Float[Array, "experts mlp dim"]


class How(NamedTuple):
    """What a mixture computes and on which devices, without its arrays."""

    config: MixtureConfig
    activation: str
    execution: Execution


class Experts(nnx.Module):
    """A router, and the experts that it chooses from, which have no adapters.

    >>> mixture = MixtureConfig(experts=5, active=2)
    >>> layer = Experts(DecoderConfig.tiny(), mixture, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((3, 4, 32))).shape
    (3, 4, 32)
    """

    def __init__(
        self,
        c: DecoderConfig,
        mixture: MixtureConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
    ):
        dim, mlp = c.hidden_size, c.intermediate_size

        def stacked(d_in: int, d_out: int) -> Linear:
            make = lambda key: Linear(d_in, d_out, rngs=nnx.Rngs(key), dtype=dtype)
            return nnx.vmap(make)(jax.random.split(rngs(), mixture.experts))

        self.router = Linear(dim, mixture.experts, rngs=rngs, dtype=dtype)
        self.gate_proj, self.up_proj = stacked(dim, mlp), stacked(dim, mlp)
        self.down_proj = stacked(mlp, dim)
        self.mixture, self.activation = mixture, c.activation

    def __call__(
        self,
        x: Float[Array, "*batch time dim"],
        execution: Execution = ONE_DEVICE,
    ) -> Float[Array, "*batch time dim"]:
        """Send each token through its experts."""
        layers = (self.gate_proj, self.up_proj, self.down_proj)
        kernels = Kernels(*(layer.kernel[...] for layer in layers))
        how = How(self.mixture, self.activation, execution)
        return mixed(how, x, self.router(x), kernels)


def routed(
    logits: Float[Array, "tokens experts"], c: MixtureConfig
) -> tuple[Float32[Array, "tokens active"], Int[Array, "tokens active"]]:
    """Return the weights and the numbers of each token's experts.

    >>> c = MixtureConfig(experts=3, active=2)
    >>> weights, chosen = routed(jnp.log(jnp.array([[0.2, 0.5, 0.3]])), c)
    >>> weights.round(3).tolist(), chosen.tolist()
    ([[0.625, 0.375]], [[1, 2]])
    """
    shares = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    weights, chosen = jax.lax.top_k(shares, c.active)
    if c.normalised:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return weights, chosen


def _mixed(how: How, x: Array, logits: Array, kernels: Kernels) -> Array:
    def forward(kernels: Kernels, x: Array, logits: Array) -> Array:
        weights, chosen = routed(logits, how.config)
        blocks = Blocks.of(chosen, how.config.experts)

        def step(block: Block, y: Array) -> Array:
            out = _expert(how, block, kernels, *block.take(x, weights))
            return block.add(y, out)

        y = blocks.run(step, jnp.zeros(x.shape, jnp.float32))
        return y.astype(x.dtype)

    return _together(forward, how.execution)(kernels, x, logits)


#: Send tokens through their experts: how, tokens, the router's logits, kernels.
mixed = jax.custom_vjp(_mixed, nondiff_argnums=(0,))


def _kept(how: How, x: Any, logits: Any, kernels: Any) -> tuple[Array, Any]:
    if any(kernel.perturbed for kernel in kernels):
        raise NotImplementedError("experts are frozen: their gradient is not computed.")
    values = x.value, logits.value, Kernels(*(kernel.value for kernel in kernels))
    return _mixed(how, *values), values


def _slopes(how: How, kept: Any, slope: Any) -> tuple[Array, Array, None]:
    x, logits, kernels = kept

    def backward(kernels: Kernels, x: Array, logits: Array, slope: Array):
        weights, slope_of, chosen = jax.vjp(
            lambda logits: routed(logits, how.config), logits, has_aux=True
        )
        blocks = Blocks.of(chosen, how.config.experts)

        def step(block: Block, found: tuple[Array, Array]) -> tuple[Array, Array]:
            run = lambda x, weights: _expert(how, block, kernels, x, weights)
            _, back = jax.vjp(run, *block.take(x, weights))
            of_x, of_weights = back(block.rows(slope))
            return block.add(found[0], of_x), block.put(found[1], of_weights)

        start = jnp.zeros(x.shape, jnp.float32), jnp.zeros_like(weights)
        of_x, of_weights = blocks.run(step, start)
        return of_x.astype(x.dtype), *slope_of(of_weights)

    if isinstance(slope, jax.custom_derivatives.SymbolicZero):
        slope = jnp.zeros(x.shape, x.dtype)
    found = _together(backward, how.execution)(kernels, x, logits, slope)
    return *found, None


mixed.defvjp(_kept, _slopes, symbolic_zeros=True)


def _together(fn: Callable, execution: Execution) -> Callable:
    """Map a function over the tokens of all examples at once, also under `vmap`."""

    @custom_vmap
    def run(kernels: Kernels, *arrays: Array) -> Any:
        *batch, _ = arrays[0].shape
        flat = [x.reshape(-1, x.shape[-1]) for x in arrays]
        found = execution.by_token(fn, len(flat[0]))(kernels, *flat)
        return jax.tree.map(lambda y: y.reshape(*batch, y.shape[-1]), found)

    @run.def_vmap
    def _(size: int, batched: list, kernels: Kernels, *arrays: Array) -> Any:
        assert not any(batched[0]), "all examples have the same experts"
        each = lambda x, own: x if own else jnp.broadcast_to(x, (size, *x.shape))
        found = run(kernels, *map(each, arrays, batched[1:]))
        return found, jax.tree.map(lambda _: True, found)

    return run


def _expert(
    how: How,
    block: "Block",
    kernels: Kernels,
    x: Float[Array, "block dim"],
    weights: Float32[Array, " block"],
) -> Float[Array, "block dim"]:
    """Run tokens through one expert: (w act(x W_gate) * x W_up) W_down."""
    gate, up, down = (kernel[block.expert] for kernel in kernels)
    act = ACTIVATIONS[how.activation]
    inner = act(product(x, gate)) * product(x, up)
    inner = (inner * weights[:, None]).astype(x.dtype)
    return product(inner, down)


class Block(NamedTuple):
    """Tokens of one expert: their numbers, and where they chose it.

    A block that its tokens do not fill ends with places past the last ones, from which
    zeros are taken and where nothing is put.
    """

    expert: Int[Array, ""]
    token: Int[Array, " block"]
    rank: Int[Array, " block"]  # the first, second, ... choice of the token

    def rows(self, x: Float[Array, "tokens dim"]) -> Float[Array, "block dim"]:
        """Return the rows of its tokens."""
        return x.at[self.token].get(mode="fill", fill_value=0)

    def take(
        self, x: Float[Array, "tokens dim"], weights: Float[Array, "tokens active"]
    ) -> tuple[Float[Array, "block dim"], Float[Array, " block"]]:
        """Return the rows of its tokens, and the weights of its expert for them."""
        place = (self.token, self.rank)
        return self.rows(x), weights.at[place].get(mode="fill", fill_value=0)

    def add(
        self, y: Float32[Array, "tokens dim"], rows: Float[Array, "block dim"]
    ) -> Float32[Array, "tokens dim"]:
        """Add rows to those of its tokens."""
        return y.at[self.token].add(rows.astype(y.dtype), mode="drop")

    def put(
        self, y: Float[Array, "tokens active"], numbers: Float[Array, " block"]
    ) -> Float[Array, "tokens active"]:
        """Write one number for each of its tokens' choices."""
        return y.at[self.token, self.rank].set(numbers, mode="drop")


class Blocks(NamedTuple):
    """Choices of experts sorted by expert, and the blocks that they fill."""

    order: Int[Array, " choices"]  # token * active + rank, sorted by expert
    last: Int[Array, " experts"]  # where the choices of each expert end
    first: Int[Array, " experts"]
    ends: Int[Array, " experts"]  # where its blocks end
    active: int
    size: int

    @classmethod
    def of(cls, chosen: Int[Array, "tokens active"], experts: int) -> "Blocks":
        """Sort the choices of all tokens."""
        tokens, active = chosen.shape
        mean = max(1, tokens * active // experts)
        least, most = BLOCKS
        size = min(max(1 << (mean - 1).bit_length(), least), most)
        flat = chosen.ravel()
        counts = jnp.bincount(flat, length=experts)
        last, ends = jnp.cumsum(counts), jnp.cumsum(-(-counts // size))
        return cls(jnp.argsort(flat), last, last - counts, ends, active, size)

    def run(self, step: Callable[[Block, Any], Any], start: Any) -> Any:
        """Fold all blocks into a state; there are as many as the choices fill."""
        count = len(self.order)

        def body(i: Array, state: Any) -> Any:
            expert = jnp.searchsorted(self.ends, i, side="right")
            before = jnp.where(expert > 0, self.ends[expert - 1], 0)
            place = self.first[expert] + (i - before) * self.size
            places = place + jnp.arange(self.size)
            choice = self.order.at[places].get(mode="clip")
            token = jnp.where(places < self.last[expert], choice // self.active, count)
            return step(Block(expert, token, choice % self.active), state)

        return jax.lax.fori_loop(0, self.ends[-1], body, start)
