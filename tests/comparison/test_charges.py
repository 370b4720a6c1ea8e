"""FLOPs of what a choice reads, and of a training whose lower layers run once."""

import numpy as np
import pytest

from goracs_jax.comparison import charges
from goracs_jax.comparison.charges import Search, Sizes, Trained, training_flops
from goracs_jax.comparison.design import Trial
from goracs_jax.llm.flops import Counts, forward_flops, gradient_flops
from goracs_jax.models import DecoderConfig

COUNTS = Counts(np.array([9, 20, 31]), np.array([2, 2, 3]))
ROWS = np.array([0, 2])


def charged(epochs, validations, *, frozen=3, **more):
    sliding = {"sliding": (True, False, True, False, True), "window": 4}
    llm = DecoderConfig.tiny(num_layers=5, **sliding)
    sizes = Sizes(llm, None, COUNTS, COUNTS, COUNTS.tokens, frozen)
    return training_flops(sizes, Trained(ROWS, epochs, validations, **more))


def test_an_epoch_has_the_work_of_the_layers_that_are_trained():
    flat = DecoderConfig.tiny(num_layers=2)
    step = gradient_flops(flat, COUNTS.take(ROWS), "all_lora")
    check = forward_flops(flat, COUNTS)
    once = lambda *counts: charged(*counts, once=True)
    assert once(8, 3) - once(7, 3) == pytest.approx(step)
    assert once(8, 3) - once(8, 2) == pytest.approx(check)


def test_layers_below_run_once_or_each_time():
    assert charged(1, 1, once=True) == pytest.approx(charged(1, 1))
    assert charged(6, 6) == pytest.approx(6 * charged(1, 1))
    # No gradient goes through them: less than with adapters in all layers.
    assert charged(6, 6, once=True) < charged(6, 6) < charged(6, 6, frozen=0)


def formulas(llm, tokens, scored):
    """A forward pass, and its part in attention: one text after the other."""
    dim, q = llm.hidden_size, llm.num_heads * llm.head_dim
    keys = 2 * dim * llm.num_kv_heads * llm.head_dim
    rest = 2 * dim * q + 3 * dim * llm.intermediate_size
    forward = attention = 0
    for t, s in zip(tokens.tolist(), scored.tolist(), strict=True):
        asking = s or t  # without logits the last layer's states of all tokens
        pairs = 4 * q * t * t * (llm.num_layers - 1) + 4 * q * t * asking
        linear = 2 * t * ((llm.num_layers - 1) * (keys + rest) + keys)
        linear += 2 * asking * rest
        attention += pairs
        forward += linear + pairs + 2 * s * dim * llm.vocab_size
    return forward, attention


@pytest.mark.parametrize(
    ("arm", "lambda_", "passes"),
    [
        ("goracs@text@none", None, {"embeddings": "text"}),
        ("goracs@states@none", None, {"embeddings": "states"}),
        ("goracs@prompts@none", None, {"embeddings": "states"}),
        ("goracs@gradient@none", None, {"gradients": "gradient"}),
        ("goracs@subspace@none", None, {"gradients": "gradient"}),
        ("goracs@states", 0.3, {"embeddings": "states", "gradients": "norms"}),
        ("loss-drop", None, {"gradients": "drop"}),
        ("random", None, {}),
    ],
)
def test_the_passes_that_a_choice_reads(arm, lambda_, passes):
    llm = DecoderConfig.tiny(num_layers=3)
    train, valid = COUNTS, Counts(np.array([7, 15]), np.array([2, 4]))
    embedded = np.array([8, 21, 30, 6, 14])
    sizes = Sizes(llm, None, train, valid, embedded)
    trial = Trial(arm, lambda_, 2, 0)
    found = charges.charged(trial, sizes, Trained(ROWS, 1, 1), Search(2, 5))
    found.pop("training")
    if "embeddings" in trial.arm.record.needs:
        assert found.pop("selection") == 2 * 2 * (3 * 2) * 5

    forward, attention = np.sum([formulas(llm, *c) for c in (train, valid)], axis=0)
    once, _ = formulas(llm, *train)
    states = sum(formulas(llm, c.tokens, 0 * c.tokens)[0] for c in (train, valid))
    # The last v_proj's gradient goes through the head and half of its layer.
    dim, q = llm.hidden_size, llm.num_heads * llm.head_dim
    t, s = train
    back = 2 * s * dim * (llm.vocab_size + q + 3 * llm.intermediate_size)
    expected = {
        "text": formulas(llm, embedded, 0 * embedded)[0],
        "states": states,
        "gradient": 2 * forward + attention,
        "norms": once + (back + 2 * t * s * q).sum(),
        "drop": 2 * once,
    }
    # Sums of integers below 2^53, in float64.
    assert found == {cost: expected[name] for cost, name in passes.items()}
