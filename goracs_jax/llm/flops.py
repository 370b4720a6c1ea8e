r"""Count the FLOPs of passes over a model, from its sizes and the lengths of texts.

Only matrix products count: one of [a, b] and [b, c] takes 2 a b c FLOPs. For an example
of T tokens, S of them scored, and a decoder of L layers with W weights in the linear
layers of each, K of them in those of keys and values, q = heads x head_dim, and
H = vocab x dim weights in the output head,

    linear    = 2 T ((L - 1) W + K) + 2 S (W - K)
    attention = 4 T^2 q (L - 1) + 4 T S q                (all pairs, as computed)
    forward   = linear + attention + 2 S H
    all_lora  = forward + linear + 2 attention + 2 S H

since the last layer needs keys and values of all tokens and everything else of scored
ones alone. (A pass without scores needs the states of all tokens, S = T, and no
logits.) In the backward pass a frozen weight takes one product (the gradient of its
input) and none for itself, and attention takes two for each of its own. The gradient of
v_proj in the last layer goes no further back, and needs neither q nor k of that layer:

    last_v_lora_b = forward + 2 S H + 2 S dim (q + 3 mlp) + 2 T S q

With a mixture of experts, W counts the experts that a token goes through, and the
router; 3 dim mlp stands for the weights of all these.

Three things are left out: adapters, with r (in + out) weights for each in x out, which
are about 1 %; norms, activations and softmax; and scores of attention that are computed
again backward, which saves memory and is no work that the method needs.
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

    >>> config = DecoderConfig.tiny()  # L = 2, W = 7680, K = 1024, H = 3072, q = 32
    >>> found = forward_flops(config, Counts(np.array([10]), np.array([2])))
    >>> linear = 2 * 10 * (7680 + 1024) + 2 * 2 * (7680 - 1024)
    >>> found == linear + 4 * 32 * (10 * 10 + 10 * 2) + 2 * 2 * 3072
    True
    """
    head = 2 * config.hidden_size * config.vocab_size * _sum(counts.scored)
    return _linear(config, counts) + _attention(config, counts) + head


def gradient_flops(config: DecoderConfig, counts: Counts, which: Which) -> float:
    """Count the FLOPs of the gradients of some adapters, forward and backward.

    Args:
        config: Sizes of the decoder.
        counts: Tokens of each example.
        which: The adapters; a step of training takes the gradient of `all_lora` (with
            dropout it runs the last layer at all tokens, which is not counted).

    >>> config, counts = DecoderConfig.tiny(), Counts(np.array([10]), np.array([10]))
    >>> once = forward_flops(config, counts)
    >>> 2 < gradient_flops(config, counts, "all_lora") / once < 2.2
    True
    """
    c = config
    forward, queries = forward_flops(c, counts), c.num_heads * c.head_dim
    if which == "all_lora":
        return 2 * forward + _attention(c, counts)
    asking = _asking(counts)
    head = c.vocab_size * _sum(counts.scored)
    linear = (queries * c.hidden_size + c.mlp_weights) * _sum(asking)
    attention = attention_flops(queries, counts.tokens, asking)
    return forward + 2 * (c.hidden_size * head + linear) + attention / 2


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


def attention_flops(
    queries: int, lengths: Lengths, asking: Lengths | None = None
) -> float:
    """Count the FLOPs of one layer's attention, 4 T S q per example.

    Args:
        queries: Numbers of a token in its queries, q.
        lengths: Tokens of each text, T.
        asking: How many of them have queries, S; None means all.

    >>> attention_flops(32, np.array([10, 20]))
    64000.0
    """
    pairs = np.asarray(lengths, np.float64) * (lengths if asking is None else asking)
    return 4.0 * queries * float(pairs.sum())


def _asking(counts: Counts) -> Lengths:
    """Count the tokens whose outputs of the last layer are needed."""
    return np.where(counts.scored > 0, counts.scored, counts.tokens)


def _linear(c: DecoderConfig, counts: Counts) -> float:
    keys = c.hidden_size * 2 * c.num_kv_heads * c.head_dim
    rest = c.hidden_size * 2 * c.num_heads * c.head_dim + c.mlp_weights
    of_token = (c.num_layers - 1) * (keys + rest) + keys
    return 2 * (of_token * _sum(counts.tokens) + rest * _sum(_asking(counts)))


def _attention(c: DecoderConfig, counts: Counts) -> float:
    queries, lengths = c.num_heads * c.head_dim, counts.tokens
    last = attention_flops(queries, lengths, _asking(counts))
    return (c.num_layers - 1) * attention_flops(queries, lengths) + last


def _sum(lengths: Lengths) -> float:
    return float(np.sum(lengths, dtype=np.float64))
