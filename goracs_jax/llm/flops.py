r"""Count the FLOPs of passes over a model, from its sizes and the lengths of texts.

Only matrix products count: one of [a, b] and [b, c] takes 2 a b c FLOPs. For an example
of T tokens, S of them scored, and a decoder of L layers with W weights in the linear
layers of each, q = heads x head_dim, and H = vocab x dim weights in the output head,

    forward  = 2 T L W + 2 S H + L A,     A = 4 T^2 q  (all pairs, as computed)
    all_lora = forward + 2 T L W + 2 S H + 2 L A

since in the backward pass a frozen weight takes one product (the gradient of its
input) and none for itself, and attention takes two for each of its own. The gradient of
v_proj in the last layer goes no further back, and needs neither q nor k of that layer:

    last_v_lora_b = forward + 2 S H + 2 T dim (q + 3 mlp) + A / 2

Three things are left out: adapters, with r (in + out) weights for each in x out, which
are about 1 %; norms, activations and softmax; and attention that is computed again
backward, A L, which saves memory and is no work that the method needs.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from goracs_jax.llm.gradients import Which
from goracs_jax.llm.tokens import Tokens
from goracs_jax.models import DecoderConfig, EncoderConfig

Lengths = Int[np.ndarray, " examples"]


class Counts(NamedTuple):
    """The tokens of each example; padding is among them where it is to be counted."""

    tokens: Lengths
    scored: Lengths  # those that have logits

    @classmethod
    def of(cls, tokens: Tokens) -> "Counts":
        """Count the tokens of tokenised examples."""
        return cls(tokens.lengths, tokens.scored)

    def take(self, rows: Int[np.ndarray, " rows"]) -> "Counts":
        """Select the counts of some examples."""
        return Counts(self.tokens[rows], self.scored[rows])


def forward_flops(config: DecoderConfig, counts: Counts) -> float:
    """Count the FLOPs of a forward pass over examples, with logits of scored tokens.

    Args:
        config: Sizes of the decoder.
        counts: Tokens of each example. Where no token is scored, the pass ends with the
            hidden states.

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
    """Count the FLOPs of the gradients of some adapters, forward and backward.

    Args:
        config: Sizes of the decoder.
        counts: Tokens of each example.
        which: The adapters; a step of training takes the gradient of `all_lora`.

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
    """Count the FLOPs of a sentence encoder on texts.

    A text of T tokens takes L T (8 dim^2 + 4 dim mlp) + 4 L T^2 dim.

    Args:
        config: Sizes of the encoder.
        lengths: Tokens of each text.
    """
    c, dim = config, config.hidden_size
    layer = (8 * dim + 4 * c.intermediate_size) * dim * _sum(lengths)
    return c.num_layers * (layer + attention_flops(dim, lengths))


def attention_flops(queries: int, lengths: Lengths) -> float:
    """Count the FLOPs of one layer's attention, A = 4 T^2 q per example.

    >>> attention_flops(32, np.array([10, 20]))
    64000.0
    """
    return 4.0 * queries * float((np.asarray(lengths, np.float64) ** 2).sum())


def _sum(lengths: Lengths) -> float:
    return float(np.sum(lengths, dtype=np.float64))
