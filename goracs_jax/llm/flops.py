r"""FLOPs of the passes over a model: the matrix products, from sizes and lengths.

A product of [a, b] and [b, c] counts 2 a b c. For an example of T tokens and a decoder
of L layers, with W weights in the linear layers of one, q = heads x head_dim,
H = vocab x dim in the output head, and S tokens that are scored,

    forward  = 2 T L W + 2 S H + L A,     A = 4 T^2 q  (all pairs, as computed)
    all_lora = forward + 2 T L W + 2 S H + 2 L A

since a frozen weight costs one product backward (for its input) and none for itself,
and attention two for each of its own. Where the gradient is that of v_proj in the last
layer, nothing goes further back, and that layer needs neither q nor k:

    last_v_lora_b = forward + 2 S H + 2 T dim (q + 3 mlp) + A / 2

Left out: adapters, r (in + out) for each in x out, about 1 %; norms, activations and
softmax; attention computed again backward, A L, which is memory saved and no work that
the method needs.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from goracs_jax.llm.gradients import Which
from goracs_jax.llm.tokens import Tokens
from goracs_jax.models import DecoderConfig, EncoderConfig

Lengths = Int[np.ndarray, " examples"]


class Counts(NamedTuple):
    """Tokens of each example; those of padding, too, where it is to count."""

    tokens: Lengths
    scored: Lengths  # those that have logits

    @classmethod
    def of(cls, tokens: Tokens) -> "Counts":
        """Those of tokenised examples."""
        return cls(tokens.lengths, tokens.scored)

    def take(self, rows: Int[np.ndarray, " rows"]) -> "Counts":
        """Those of some of the examples."""
        return Counts(self.tokens[rows], self.scored[rows])


def forward_flops(config: DecoderConfig, counts: Counts) -> float:
    """A pass over examples, with the logits of scored tokens.

    Args:
        config: Sizes of the decoder.
        counts: Tokens of each example; where none is scored the pass ends with the
            hidden states.

    Returns:
        The sum over the examples.

    >>> config = DecoderConfig.tiny()  # W = 7680, H = 3072, q = 32
    >>> found = forward_flops(config, Counts(np.array([10]), np.array([2])))
    >>> found == 2 * (10 * 2 * 7680 + 2 * 3072) + 25600
    True
    """
    c = config
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    weights = c.hidden_size * (2 * queries + 2 * keys + 3 * c.intermediate_size)
    linear = c.num_layers * weights * _sum(counts.tokens)
    head = c.hidden_size * c.vocab_size * _sum(counts.scored)
    return 2 * (linear + head) + c.num_layers * attention_flops(queries, counts.tokens)


def gradient_flops(config: DecoderConfig, counts: Counts, which: Which) -> float:
    """A pass over examples that ends with the gradient of some adapters.

    Args:
        config: Sizes of the decoder.
        counts: Tokens of each example.
        which: The adapters; a step of training has the gradient of `all_lora`.

    Returns:
        The sum over the examples.

    >>> config, counts = DecoderConfig.tiny(), Counts(np.array([10]), np.array([10]))
    >>> once = forward_flops(config, counts)
    >>> 2 < gradient_flops(config, counts, "all_lora") / once < 2.2
    True
    """
    c = config
    forward, queries = forward_flops(c, counts), c.num_heads * c.head_dim
    attention = attention_flops(queries, counts.tokens)
    if which == "all_lora":
        return 2 * forward + c.num_layers * attention
    head = c.vocab_size * _sum(counts.scored)
    linear = (queries + 3 * c.intermediate_size) * _sum(counts.tokens)
    return forward + 2 * c.hidden_size * (head + linear) + attention / 2


def encoder_flops(config: EncoderConfig, lengths: Lengths) -> float:
    """A pass of a sentence encoder: T L (8 dim^2 + 4 dim mlp) + 4 L T^2 dim each.

    Args:
        config: Sizes of the encoder.
        lengths: Tokens of each text.

    Returns:
        The sum over the texts.
    """
    c, dim = config, config.hidden_size
    layer = (8 * dim + 4 * c.intermediate_size) * dim * _sum(lengths)
    return c.num_layers * (layer + attention_flops(dim, lengths))


def attention_flops(queries: int, lengths: Lengths) -> float:
    """Scores and mixing of one layer, A = 4 T^2 q each.

    >>> attention_flops(32, np.array([10, 20]))
    64000.0
    """
    return 4.0 * queries * float((np.asarray(lengths, np.float64) ** 2).sum())


def _sum(lengths: Lengths) -> float:
    return float(np.sum(lengths, dtype=np.float64))
