"""FLOPs of a training whose lower layers run once, or each time."""

import numpy as np
import pytest

from goracs_jax.comparison.charges import Sizes, Trained, training_flops
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
