r"""Predict the bytes of the activations of a pass over a language model.

For e examples of T tokens on a device, t = e T, a model of L layers, b bytes a number,
and

    S = 4 e heads T^2      attention scores of a layer, in float32
    F = 2 mlp + 2 dim      numbers of a token in the MLP
    H                      numbers of a token in queries, keys and values

the activations are at most

    forward  = max(1.5 S + 2.5 b t dim, b t F)    (TPU: 2 S)
    backward = L b t (kept numbers of a token) + 2.5 S + b t F

where a backward pass keeps the outputs of linear layers (remat "products") or only the
input of each layer ("layers"), from which it makes those of one layer again. Where
`goracs_jax.models.splash` serves, S is zero, and a forward pass takes up to
b t (2.5 dim + 2.06 H), or 2.6 H on TPUs with a matrix unit of 256 rows. The loss takes
a block of logits, or all logits of scored tokens where the head is trained; generation
the cache of keys and values. Of a mixture of experts one block of tokens is in memory
at a time, so F is 4 dim (sums in float32) and what is sorted, and none of it is kept;
this was compared with the compiler of a CPU alone, where it is as near as the formula
of one MLP. The other constants were fitted to what the compilers of TPUs and GPUs say,
so that memory is not understated; benchmarks/README.md compares them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from goracs_jax.choices import Remat
from goracs_jax.llm.sizes import Placement, linear_sizes, trained_sizes
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.lora import LoraConfig

#: What a backward pass may need beyond its formula, for the order in which a compiler
#: puts its operations.
SPARE = 1.08
#: Beams of an evaluation, and the tokens that it generates, by default.
BEAMS, NEW = 2, 128
LOGIT_TOKENS = 512


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


class Activations(NamedTuple):
    """Bytes of the activations of a pass, on one device.

    Args:
        config: Sizes of the decoder.
        lora: The adapters, resolved.
        rows: The rows of a batch that are on the device.
        placement: How the pass lies on its devices.
        splash: Whether attention scores stay in the kernel.
        apart: Whether weights are cut up over `data`.

    >>> given = DecoderConfig.tiny(), LoraConfig(), Rows(2, 16, 16), Placement(lanes=1)
    >>> Activations(*given, splash=False, apart=False).forward()
    17408.0
    """

    config: DecoderConfig
    lora: LoraConfig
    rows: Rows
    placement: Placement
    splash: bool
    apart: bool

    def _padded(self, width: int) -> int:
        lanes = self.placement.lanes
        return -(-width // lanes) * lanes

    def _part(self, count: int) -> int:
        """Return how many of so many features or heads a device has."""
        return -(-count // self.placement.model)

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.placement.itemsize

    @property
    def tokens(self) -> int:
        """Tokens of the batch, padding included."""
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
        """Numbers of a token in the residual stream, padded to lanes."""
        return self._padded(self.config.hidden_size)

    @property
    def scores(self) -> int:
        """Bytes of the attention scores of one layer."""
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
        """Bytes of a forward pass through the layers."""
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
        """Bytes of a backward pass through all layers, and of what it keeps."""
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
