r"""Predict the memory of a pass over a language model, from its sizes alone.

A device holds the arguments (weights, adapters, ids), the results, and temporaries. For
e examples of T tokens on a device, t = e T, a model of L layers, b bytes a number, and

    S = 4 e heads T^2      attention scores of a layer, in float32
    F = 2 mlp + 2 dim      numbers of a token in the MLP
    H                      numbers of a token in queries, keys and values

the temporaries are at most

    forward  = max(1.5 S + 2.5 b t dim, b t F) + weights of a layer    (TPU: 2 S)
    backward = L b t (kept numbers of a token) + 2.5 S + b t F + weights of a layer

where a backward pass keeps the outputs of linear layers (remat "products") or only the
input of each layer ("layers"), from which it makes those of one layer again. Where
`goracs_jax.models.splash` serves, S is zero, and a forward pass takes up to
b t (2.5 dim + 2.06 H), or 2.6 H on TPUs with a matrix unit of 256 rows. The loss takes
a block of logits, or all logits of scored tokens where the head is trained; generation
the cache of keys and values. Of a mixture of experts one block of tokens is in memory
at a time, so F is 4 dim (sums in float32) and what is sorted, and none of it is kept;
this has not been compared with a compiler yet. The other constants were fitted to
what the compilers of TPUs and GPUs say, so that memory is not understated;
benchmarks/README.md compares them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from goracs_jax.choices import Remat
from goracs_jax.errors import InputError
from goracs_jax.llm.sizes import Placement, linear_sizes, trained_sizes, weight_bytes
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.lora import LoraConfig
from goracs_jax.models.targets import BLOCKS

#: The share of a device's memory that a plan fills.
FILLED = 0.9
#: What a backward pass may need beyond its formula, for the order in which a compiler
#: puts its operations.
SPARE = 1.08
#: Beams of an evaluation, and the tokens that it generates, by default.
BEAMS, NEW = 2, 128
LOGIT_TOKENS = 512

FORWARD = ("embedding", "validation", "answers", "likelihood", "generation")
BACKWARD = ("last_v_lora_b", "all_lora", "training")
PASSES = (*FORWARD, *BACKWARD)


class Rows(NamedTuple):
    """The shape of a batch on one device.

    Args:
        examples: Rows of the batch on a device.
        length: Tokens of a row, padding included.
        scored: Largest number of scored tokens in a row.
        projected: Numbers that are kept of each gradient; 0 where none is projected.
        beams: Beams of a generation.
        new: Tokens that it generates.
    """

    examples: int
    length: int
    scored: int
    projected: int = 0
    beams: int = BEAMS
    new: int = NEW


class Memory(NamedTuple):
    """Bytes of a program on one device."""

    arguments: int
    temporaries: int
    outputs: int = 0

    @property
    def peak(self) -> int:
        """All bytes that the program needs."""
        return sum(self)


def pass_memory(
    config: DecoderConfig,
    lora: LoraConfig,
    pass_name: str,
    rows: Rows,
    placement: Placement,
) -> Memory:
    """Predict the memory of a pass on one device.

    Args:
        config: Sizes of the decoder.
        lora: The adapters.
        pass_name: One of `PASSES`.
        rows: The rows of a batch that are on one device.
        placement: How the pass lies on its devices.

    Raises:
        InputError: There is no such pass.

    >>> config, lora = DecoderConfig.tiny(), LoraConfig()
    >>> few, many = (
    ...     pass_memory(config, lora, "training", Rows(n, 16, 16), Placement())
    ...     for n in (1, 8)
    ... )
    >>> few.temporaries < many.temporaries
    True
    """
    if pass_name not in PASSES:
        raise InputError(f"no pass {pass_name!r}: give one of {', '.join(PASSES)}.")
    lora = lora.resolved(config)
    weights = weight_bytes(config, lora, placement)
    tokens = rows.examples * rows.length
    held = weights.layers + weights.tables + weights.adapters
    held += 0 if pass_name == "embedding" else weights.head
    held += weights.adapters if pass_name == "training" else 0  # the sums
    # A layer is whole over `data` while it runs, and so is the head for the loss. GPUs
    # copy the weights of a layer even where they are whole.
    moved = weights.layer
    if placement.data > 1 and pass_name not in ("embedding", "answers"):
        moved += weights.logits
    # Texts that are not one from left to right have their scores in memory.
    plain = pass_name not in ("likelihood", "generation")
    splash = plain and placement.splash(config, rows.length)
    apart = weights.layers < config.num_layers * weights.layer
    work = _Work(config, lora, rows, placement, splash, apart)
    # Trained tables are float32; where they are used, they are of the model's type.
    moved += work.tables * placement.itemsize if placement.itemsize < 4 else 0
    temporaries = {
        "embedding": lambda: work.forward(),
        "answers": lambda: work.forward(),
        "validation": lambda: work.validation(),
        "likelihood": lambda: max(work.forward(), work.logits()),
        "generation": lambda: work.generation(),
        "last_v_lora_b": lambda: work.tail(),
        "all_lora": lambda: max(work.backward() + work.gradients(), work.projection()),
        "training": lambda: work.backward() + work.dropped() + 4 * work.tables,
    }[pass_name]()
    outputs = {"embedding": 4 * rows.examples * config.hidden_size}
    # Ids, and labels where they are read.
    table = 4 if pass_name in ("embedding", "answers", "generation") else 8
    arguments = held + table * tokens
    # The weight of each token, by which texts end.
    arguments += 4 * config.vocab_size if pass_name == "generation" else 0
    return Memory(arguments, int(temporaries + moved), outputs.get(pass_name, 0))


class _Work(NamedTuple):
    """Bytes of the activations of a pass, on one device."""

    config: DecoderConfig
    lora: LoraConfig
    rows: Rows
    placement: Placement
    splash: bool  # whether attention scores stay in the kernel
    apart: bool  # whether weights are cut up over `data`

    def _padded(self, width: int) -> int:
        lanes = self.placement.lanes
        return -(-width // lanes) * lanes

    def _part(self, count: int) -> int:
        """Return how many of so many features or heads a device has."""
        return -(-count // self.placement.model)

    @property
    def itemsize(self) -> int:
        return self.placement.itemsize

    @property
    def tokens(self) -> int:
        return self.rows.examples * self.rows.length

    @property
    def widths(self) -> Mapping[str, int]:
        """Numbers of a token after each linear layer, by its name; padded to lanes."""
        widths = {name: out for name, (_, out) in linear_sizes(self.config).items()}
        # The sums over `model` have all features.
        whole = ("o_proj", "down_proj")
        return {
            name: self._padded(width if name in whole else self._part(width))
            for name, width in widths.items()
        }

    @property
    def dim(self) -> int:
        return self._padded(self.config.hidden_size)

    @property
    def scores(self) -> int:
        heads = 0 if self.splash else self._part(self.config.num_heads)
        return 4 * self.rows.examples * heads * self.rows.length**2

    @property
    def heads(self) -> int:
        """Numbers of a token in queries, keys and values, each head padded."""
        c = self.config
        count = self._part(c.num_heads + 2 * c.num_kv_heads)
        return count * self._padded(c.head_dim)

    @property
    def mlp(self) -> int:
        """Bytes of a token in the MLP, or of its sums and choices of experts."""
        if self.config.mixture is not None:
            c = self.config.mixture
            return 2 * self.dim * (4 + self.itemsize) + 8 * c.experts + 16 * c.active
        return self.itemsize * (2 * self.widths["up_proj"] + 2 * self.dim)

    def forward(self) -> int | float:
        states = 2.5 * self.itemsize * self.dim
        mlp = self.tokens * self.mlp
        if self.placement.lanes == 1:
            return max(1.5 * self.scores + self.tokens * states, mlp)
        # A TPU rotates queries and keys, each head in lanes of its own.
        heads = self.itemsize * self.heads
        if self.splash:
            # The kernel takes and returns copies whose heads come first.
            copies = 2.6 if self.placement.matrix_unit > 128 else 2.06
            return max(self.tokens * (states + copies * heads), mlp)
        if not self.apart:
            return max(2 * self.scores + self.tokens * (states + heads), mlp)
        # While weights are on their way, more of a layer is in memory at one time.
        layer = states + 4 * self.heads + 8 * self.widths["up_proj"]
        return 2 * self.scores + self.tokens * layer

    def validation(self) -> int | float:
        """Bytes of a forward pass, and of a loss without its slope behind it."""
        # TPUs with a large matrix unit keep the states in two layouts between them.
        layouts = 1.5 if self.placement.matrix_unit > 128 else 0
        between = layouts * self.tokens * self.dim * self.itemsize
        return max(self.forward() + between, self.loss(sloped=False))

    def tail(self) -> int | float:
        """Bytes of the last layer's gradient, beside the states before that layer."""
        states = self.tokens * self.dim * (4 + 2 * self.itemsize)
        if self.placement.lanes == 1:
            # Scores are computed again beside the loss, or after it for their gradient.
            beside = 1.3 * self.scores + states + self.loss()
            return max(beside, self.forward() + states, 2.5 * self.scores + states)
        # What the layer keeps for its gradient.
        widths = 2 * self.widths["up_proj"] + self.heads + 2 * self.dim
        kept = self.scores + self.tokens * self.itemsize * widths
        step = max(self.loss(), self.tokens * self.mlp)
        return SPARE * (states + max(self.forward(), kept + step))

    def kept(self, remat: Remat) -> int | float:
        """Bytes that a backward pass keeps of one layer."""
        number = self.tokens * self.itemsize
        if remat == "layers":
            return number * self.dim
        # `down_proj` only adds to the next layer's input, which is kept anyway.
        products = sum(self.widths.values()) - self.widths["down_proj"]
        if self.config.mixture is not None:
            # Of experts, the router's logits alone.
            products -= self.widths["gate_proj"] + self.widths["up_proj"]
            products += self._padded(self.config.mixture.experts)
        low = sum(self._padded(self.lora.width(name)) for name in self.lora.targets)
        return number * (self.dim + products) + 4 * self.tokens * low

    def backward(self) -> int | float:
        kept = self.config.num_layers * self.kept(self.placement.remat)
        again = self.kept("products") if self.placement.remat == "layers" else 0
        step = 2.5 * self.scores + self.tokens * self.mlp
        return SPARE * (kept + max(again + step, self.loss()))

    def loss(self, *, sloped: bool = True) -> int | float:
        """Bytes of the loss: sums over the vocabulary, and blocks of logits.

        Args:
            sloped: Whether the slope of the loss is one of the sums. Where devices
                share the head, a pass without it gathers each block first.
        """
        scored = self.rows.examples * min(self.rows.scored, self.rows.length)
        if self.lora.trains_head(tied=self.config.tie_embeddings):
            # Logits are whole: they, their exponents, and the slopes of both. Where
            # rows are put into them, they are copied.
            copies = 4 if sloped else 3
            return scored * (8 * self.dim + 4 * copies * self.config.vocab_size)
        block = self._part(min(self.placement.vocab_block, self.config.vocab_size))
        if self.placement.lanes == 1:
            return scored * (8 * self.dim + 4 * block)
        # Of six more sums, a TPU pads each number to its lanes.
        states = 11 if sloped or self.placement.data == 1 else 9.3
        return scored * (states * self.dim + 4 * block + 24 * self.placement.lanes)

    def dropped(self) -> int:
        """Bytes of the inputs of an adapter, before and after dropout."""
        return 8 * self.tokens * self.dim

    @property
    def tables(self) -> int:
        """Numbers of the tables of the vocabulary that are trained whole."""
        c = self.config
        return len(self.lora.tables) * c.vocab_size * c.hidden_size

    def gradients(self) -> int | float:
        """Bytes of the gradients of each example."""
        return 4.0 * self.rows.examples * sum(trained_sizes(self.config, self.lora))

    def projection(self) -> int | float:
        """Bytes of gradients that are joined, padded and cut up to be projected."""
        layers, tables = trained_sizes(self.config, self.lora)
        examples = self.rows.examples
        # A TPU pads few examples to eight rows. It keeps two copies beside the tables'
        # gradients, which others join in place.
        rows = examples + 2 * (-(-examples // 8) * 8)
        rows = 2 * examples if self.placement.lanes == 1 else rows
        found = 16.0 * examples * layers + 4.0 * rows * tables
        return found if self.rows.projected else 0

    def logits(self) -> int | float:
        """Bytes of the logits of the candidates' tokens, of one piece of a row."""
        piece = min(self.rows.length, LOGIT_TOKENS)
        vocab = self._part(self.config.vocab_size)
        states = 6 * self.tokens * self.dim * self.itemsize
        # A TPU writes both the logits and their exponents.
        copies = 1 if self.placement.lanes == 1 else 2
        return states + copies * 4 * self.rows.examples * piece * vocab

    def generation(self) -> int | float:
        """Bytes of the cache of keys and values, and of what fills it."""
        c, heads = self.config, self._part(self.config.num_kv_heads)
        number = 2 * c.num_layers * self.rows.examples * heads * self.itemsize
        whole, padded = number * c.head_dim, number * self._padded(c.head_dim)
        prompt = padded * self.rows.length
        new = padded * self.rows.new * self.rows.beams
        # Room for new tokens is added to keys and values, of which a GPU has two copies
        # at that time, and a TPU a little more than three without padding.
        large = 3.3 if self.placement.matrix_unit > 128 else 3.1
        copies = 2.0 if self.placement.lanes == 1 else large
        added = max(1.5 * prompt, copies * whole * self.rows.length) + new
        phases = (self.forward() + 1.1 * prompt, added)
        states = self.tokens * self.dim * self.itemsize
        texts = self.rows.examples * self.rows.beams
        return max(phases) + states + 12 * texts * c.vocab_size


def largest_exchange(config: DecoderConfig, rows: Rows, placement: Placement) -> int:
    """Return the bytes of the largest array that the devices of a grid may exchange.

    It is a weight of one layer, whole over `data`, the part of a table that one device
    of `model` has, or the states of a device's own examples.

    Args:
        config: Sizes of the decoder.
        rows: The rows of a batch that are on one device.
        placement: How a pass lies on its devices.

    >>> largest_exchange(DecoderConfig.tiny(), Rows(1, 16, 16), Placement())
    6144
    """
    sizes = linear_sizes(config)
    experts = 1 if config.mixture is None else config.mixture.experts
    weights = max(
        a * b * (experts if BLOCKS[name] == "mlp" else 1)
        for name, (a, b) in sizes.items()
    )
    table = -(-config.vocab_size // placement.model) * config.hidden_size
    states = rows.examples * rows.length * config.hidden_size
    return max(weights * placement.itemsize, table * placement.itemsize, states * 4)


def fitting_tokens(
    config: DecoderConfig,
    lora: LoraConfig,
    pass_name: str,
    rows: Rows,
    placement: Placement,
    *,
    memory_bytes: int,
) -> int:
    """Return the most padded tokens of a batch that fit on one device.

    They fill at most 90 % of its memory, and are a multiple of the length.

    Args:
        config: As for `pass_memory`.
        lora: As for `pass_memory`.
        pass_name: As for `pass_memory`.
        rows: As for `pass_memory`, of any number of examples.
        placement: As for `pass_memory`.
        memory_bytes: Memory of the device.

    Returns:
        The tokens; 0 where not even one row fits.

    >>> config, lora = DecoderConfig.tiny(), LoraConfig()
    >>> fit = lambda size: fitting_tokens(
    ...     config, lora, "all_lora", Rows(1, 64, 64), Placement(), memory_bytes=size
    ... )
    >>> fit(10**4), fit(10**9) > fit(10**8) > 64
    (0, True)
    """

    def fits(examples: int) -> bool:
        some = rows._replace(examples=examples)
        memory = pass_memory(config, lora, pass_name, some, placement)
        return memory.peak <= FILLED * memory_bytes

    fitting, too_many = 0, 1
    while fits(too_many):
        fitting, too_many = too_many, 2 * too_many
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        fitting, too_many = (middle, too_many) if fits(middle) else (fitting, middle)
    return fitting * rows.length
