"""What every part of accelerator.py is given: sizes, weights, tokens and ceilings."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import timed
from flax import nnx
from selection import copy_rate, matmul_rate

from goracs_jax.devices import kind_of
from goracs_jax.errors import InputError
from goracs_jax.llm.tokens import Tokens, ragged
from goracs_jax.models import Decoder, DecoderConfig, load_decoder
from goracs_jax.models.rope import RopeConfig

LLAMA_7B = DecoderConfig(
    vocab_size=32_000,
    hidden_size=4096,
    intermediate_size=11_008,
    num_layers=32,
    num_heads=32,
    num_kv_heads=32,
    head_dim=128,
    max_positions=4096,
    norm_eps=1e-5,
    tie_embeddings=False,
    rope=RopeConfig(theta=10_000.0),
)
SMOLLM2 = DecoderConfig(
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1536,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    max_positions=8192,
    norm_eps=1e-5,
    tie_embeddings=True,
    rope=RopeConfig(theta=100_000.0),
)
GGUF, TOKENS = "SmolLM2-135M-Instruct.Q4_1.gguf", "movielens_tokens.npz"


class Sizes(NamedTuple):
    """How much every part computes."""

    games: tuple[int, int, int] = (88_000, 22_000, 1024)  # N, M, n
    transports: tuple[tuple[int, int], ...] = ((256, 1280), (1024, 5120))  # n, M
    small: DecoderConfig = SMOLLM2
    large: DecoderConfig = LLAMA_7B
    time: int = 512  # tokens of an example
    small_batch: int = 32  # examples of a batch of the small model
    large_batch: int = 16
    batches: int = 4  # in a pass
    lora_batch: int = 16  # examples of a training step
    adapters: int = 16
    adapter_batch: int = 2  # examples of each adapter
    prompts: int = 64  # of a beam search
    new: int = 32  # tokens that it generates
    repeats: int = 3
    product: int = 8192  # rows and columns of the matrices of the ceilings
    copied: int = 1 << 28  # numbers of the copy of the ceilings


FULL = Sizes()
#: A few minutes on two cores: a thousandth of the work, in shapes that are alike.
CPU = Sizes(
    games=(4000, 1000, 128),
    transports=((128, 640),),
    large=DecoderConfig(**{**vars(LLAMA_7B), "num_layers": 2}),
    time=128,
    small_batch=2,
    large_batch=1,
    batches=2,
    lora_batch=4,
    adapters=8,
    adapter_batch=1,
    prompts=2,
    new=8,
    repeats=1,
    product=2048,
    copied=1 << 25,
)
TINY = Sizes(
    games=(120, 40, 8),
    transports=((6, 12),),
    small=DecoderConfig.tiny(),
    large=DecoderConfig.tiny(),  # the same programs
    time=16,
    small_batch=2,
    large_batch=2,
    batches=2,
    lora_batch=4,
    adapters=3,
    adapter_batch=1,
    prompts=2,
    new=3,
    repeats=1,
    product=64,
    copied=1 << 10,
)


class Ceiling(NamedTuple):
    """The most that a device does in a second."""

    float32: float  # FLOPs of matrix products at precision HIGHEST
    bfloat16: float
    bandwidth: float  # bytes between memory and cores
    source: str


@dataclass(frozen=True, kw_only=True)
class Given:
    """The inputs of all parts; what takes long is made when it is first asked for.

    Args:
        sizes: How much every part computes.
        seconds_left: Returns the seconds that are left.
        instance: A .npz with train, valid and grad_norm in place of synthetic clusters.
        pieces: The folder that ship.py filled; without it, weights and ids are random.
    """

    sizes: Sizes
    seconds_left: Callable[[], float]
    instance: Path | None = None
    pieces: Path | None = None

    @cached_property
    def measured(self) -> Ceiling:
        """Measure a matrix product of each type, and the copy of a large array."""
        size = self.sizes.product
        return Ceiling(
            float32=matmul_rate(size),
            bfloat16=matmul_rate(size, jnp.bfloat16),
            bandwidth=copy_rate(self.sizes.copied),
            source="measured here",
        )

    @cached_property
    def ceiling(self) -> Ceiling:
        """The published peaks of the device, or those measured where none are known."""
        try:
            kind = kind_of(jax.devices()[0].device_kind)
        except InputError:
            return self.measured
        return Ceiling(kind.float32, kind.bfloat16, kind.bandwidth, "published")

    def beside_floor(
        self,
        run: Callable[[], Any],
        *,
        flops: float,
        read: float,
        dtype: str = "float32",
    ) -> dict[str, Any]:
        """Time a function beside the seconds that its FLOPs and bytes take at least.

        Args:
            run: What is timed: once to compile it, then a few times, whose median
                counts.
            flops: FLOPs of the matrix products that the result needs.
            read: Bytes that it reads or writes at least.
            dtype: The type of the products.

        Returns:
            The figures; or why there are none, where the device has not the memory.
        """
        try:
            _, first, seconds = timed(run, self.sizes.repeats)
        except jax.errors.JaxRuntimeError as error:
            return {"not_done": str(error).splitlines()[0][:200]}
        peak = self.ceiling.bfloat16 if dtype == "bfloat16" else self.ceiling.float32
        floor = max(flops / peak, read / self.ceiling.bandwidth)
        return {
            "seconds": seconds,
            "first_seconds": first,
            "flops": flops,
            "bytes": read,
            "floor_seconds": floor,
            "floor_share": floor / seconds,
            "peak_share": flops / peak / seconds,
        }

    def small(self, dtype: Any = jnp.bfloat16) -> tuple[Decoder, str]:
        """Return SmolLM2-135M, and where its weights come from."""
        path = self.pieces and self.pieces / GGUF
        if path and path.exists() and self.sizes.small is SMOLLM2:
            return load_decoder(path, key=jax.random.key(0), dtype=dtype), path.name
        return random_decoder(self.sizes.small, dtype), "random"

    def large(self, dtype: Any = jnp.bfloat16) -> Decoder:
        """Return a random model with as many layers as half of the memory takes."""
        config = self.sizes.large
        room = memory_bytes() / 2 - 2 * 2 * config.vocab_size * config.hidden_size
        fitting = int(room // (2 * layer_weights(config)))
        layers = max(2, min(config.num_layers, fitting))
        config = DecoderConfig(**{**vars(config), "num_layers": layers})
        return random_decoder(config, dtype)

    def tokens(self, config: DecoderConfig, examples: int) -> Tokens:
        """Return examples of one length: MovieLens prompts end to end, or random ids.

        All tokens are scored.
        """
        size, time = examples * self.sizes.time, self.sizes.time
        path = self.pieces and self.pieces / TOKENS
        if path and path.exists() and config.vocab_size == SMOLLM2.vocab_size:
            ids = np.resize(np.load(path)["ids"], size)
        else:
            ids = np.random.default_rng(0).integers(config.vocab_size, size=size)
        rows = ids.reshape(examples, time).tolist()
        return ragged(rows, rows)


def random_decoder(config: DecoderConfig, dtype: Any) -> Decoder:
    """Draw the weights of a model by one program, which leaves no copies in float32."""
    build = lambda key: Decoder(config, key=key, dtype=dtype)
    graph = nnx.graphdef(nnx.eval_shape(lambda: build(jax.random.key(0))))
    state = jax.jit(lambda key: nnx.state(build(key)))(jax.random.key(0))
    return nnx.merge(graph, state)


def layer_weights(config: DecoderConfig) -> int:
    """Return the number of weights in the linear layers of one layer.

    >>> layer_weights(LLAMA_7B)
    202375168
    """
    c = config
    heads = 2 * (c.num_heads + c.num_kv_heads) * c.head_dim
    return c.hidden_size * (heads + 3 * c.intermediate_size)


def weight_bytes(model: Decoder) -> int:
    """Return the bytes of all weights of a model."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model)))


def memory_bytes() -> int:
    """Return the bytes of memory that JAX may take: of the device, or of a CPU's host.

    >>> memory_bytes() > 0
    True
    """
    found = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    return found or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
