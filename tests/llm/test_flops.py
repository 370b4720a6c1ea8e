"""FLOPs against XLA's own count of the programs that run.

Each has one layer where it loops over layers, and one block of the vocabulary: XLA
counts the body of a loop once.
"""

import jax
import numpy as np
import pytest
from flax import nnx

from goracs_jax.evaluate.ctr import _margin_of_batch
from goracs_jax.llm.batches import Batch
from goracs_jax.llm.embeddings import _decoder_means, _encoder_vectors
from goracs_jax.llm.flops import Counts, encoder_flops, forward_flops, gradient_flops
from goracs_jax.llm.gradients import _scores
from goracs_jax.llm.memory import Rows
from goracs_jax.llm.sizes import Placement
from goracs_jax.llm.work import pass_flops
from goracs_jax.models import (
    Decoder,
    DecoderConfig,
    Encoder,
    EncoderConfig,
    LoraConfig,
)
from goracs_jax.models.config import MixtureConfig
from goracs_jax.training.step import accumulate, loss_sum, split, zero_sums

ROWS, TIME = 4, 24
IDS = np.ones((ROWS, TIME), np.int32)
LENGTHS = np.full(ROWS, TIME)
ALL, FEW = Counts(LENGTHS, LENGTHS), Counts(LENGTHS, np.full(ROWS, 2))
# What XLA counts beyond products: norms, rotations, activations, softmax, the adapters
# of rank 1 and, backward, attention again: 1 to 8 % at these widths. What it leaves out
# is the gradient of the first layer's inputs, 6 %, which a loop over layers computes.
TOLERANCE = 0.1


def config(num_layers: int) -> DecoderConfig:
    sizes = {"hidden_size": 128, "intermediate_size": 320, "head_dim": 32}
    return DecoderConfig.tiny(**sizes, vocab_size=900, num_layers=num_layers)


def decoder(num_layers: int) -> Decoder:
    lora = LoraConfig(r=1, dropout=0.0)
    return Decoder(config(num_layers), lora, key=jax.random.key(0))


@pytest.mark.parametrize("which", [None, "last_v_lora_b", "all_lora"])
def test_a_mixture_counts_the_experts_of_a_token(which):
    """As many as one MLP of all their widths, and the router."""
    mixture = MixtureConfig(experts=7, active=3)
    sizes = {"num_layers": 4, "hidden_size": 128, "vocab_size": 900}
    experts = DecoderConfig.tiny(**sizes, intermediate_size=50, mixture=mixture)
    one = DecoderConfig.tiny(**sizes, intermediate_size=150)
    count = (
        (lambda config: forward_flops(config, FEW))
        if which is None
        else (lambda config: gradient_flops(config, FEW, which))
    )
    router, below, last = 2 * 7 * 128, 3 * ROWS * TIME, ROWS * 2
    # Backward, the router's input has a gradient, its frozen weights have none.
    expected = {
        None: below + last,
        "last_v_lora_b": below + 2 * last,
        "all_lora": 2 * (below + last),
    }
    assert count(experts) - count(one) == router * expected[which]


def forward(counts=ALL):
    parts, most = split(decoder(1)), int(counts.scored.max())
    lowered = loss_sum.lower(parts, Batch(np.arange(ROWS), IDS, IDS), most=most)
    return lowered, forward_flops(config(1), counts)


def training(counts=ALL, num_layers=1):
    parts, batch = split(decoder(num_layers)), Batch(np.arange(ROWS), IDS, IDS)
    sums, key = zero_sums(parts), jax.random.key(0)
    most = int(counts.scored.max())
    lowered = accumulate.lower(parts, sums, batch, key, most=most)
    return lowered, gradient_flops(config(num_layers), counts, "all_lora")


def two_layers(counts=ALL):
    return training(counts, 2)


def gradients(which, num_layers, counts):
    parts = nnx.split(decoder(num_layers), nnx.LoRAParam, ...)
    lowered = _scores.lower(which, int(counts.scored.max()), *parts, IDS, IDS)
    return lowered, gradient_flops(config(num_layers), counts, which)


def last_layer(counts=ALL):
    return gradients("last_v_lora_b", 2, counts)


def all_layers(counts=ALL):
    return gradients("all_lora", 2, counts)


def answers():
    pair = np.array([1, 2], np.int32)
    lowered = _margin_of_batch.lower(*nnx.split(decoder(2)), pair, IDS, IDS)
    return lowered, forward_flops(config(2), Counts(LENGTHS, np.ones(ROWS, int)))


def embedding():
    lowered = _decoder_means.lower(*nnx.split(decoder(1)), IDS, IDS)
    return lowered, forward_flops(config(1), Counts(LENGTHS, 0 * LENGTHS))


def sentences():
    sizes = {"hidden_size": 128, "intermediate_size": 512, "vocab_size": 300}
    places = {"num_layers": 1, "num_heads": 4, "num_positions": TIME, "num_types": 2}
    text = {"pooling": "mean", "normalize": True, "lowercase": False, "gelu": "tanh"}
    rest = {"first_position": 0, "norm_eps": 1e-5, "max_tokens": TIME}
    encoder_config = EncoderConfig(**sizes, **places, **text, **rest)
    encoder = Encoder(encoder_config, key=jax.random.key(0))
    lowered = _encoder_vectors.lower(*nnx.split(encoder), IDS, IDS)
    return lowered, encoder_flops(encoder_config, LENGTHS)


@pytest.mark.parametrize(
    "kind", [forward, training, last_layer, answers, embedding, sentences]
)
def test_xla_counts_the_same(kind):
    agree(*kind())


@pytest.mark.parametrize("kind", [forward, two_layers, last_layer, all_layers])
def test_xla_counts_the_same_where_few_tokens_are_scored(kind):
    agree(*kind(FEW))


def agree(lowered, counted):
    # What no output needs is gone from the optimised program.
    found = lowered.compile().cost_analysis()["flops"]
    assert found == pytest.approx(counted, rel=TOLERANCE)


def test_training_without_dropout_has_the_work_of_gradients():
    """With dropout its last layer runs at all tokens, not at the two scored ones."""
    rows, plain = Rows(ROWS, TIME, 2), LoraConfig(r=1, dropout=0.0)
    flops = lambda name, lora: pass_flops(config(2), lora, name, rows, Placement())
    trained = flops("training", plain)
    assert trained == flops("all_lora", plain)
    assert trained < 0.9 * flops("training", LoraConfig(r=1, dropout=0.1))


def test_layers_and_examples_add_up():
    lengths = np.array([3, 7, 20])
    counts = Counts(lengths, np.array([1, 0, 5]))
    one, two, three = (forward_flops(config(n), counts) for n in (1, 2, 3))
    assert three - two == two - one > 0
    single = [forward_flops(config(1), counts.take(np.array([i]))) for i in range(3)]
    assert sum(single) == one
