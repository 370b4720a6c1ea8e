"""Steps of LoRA fine-tuning, as `goracs finetune` takes them; see torch_steps.py."""

import time

import numpy as np

from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.tokens import Tokens, take
from goracs_jax.models import Decoder
from goracs_jax.training import FinetuneConfig
from goracs_jax.training.order import Order
from goracs_jax.training.run import Run


class Ours:
    """The steps of a training run, which is compiled when it is made."""

    def __init__(
        self,
        model: Decoder,
        tokens: Tokens,
        config: FinetuneConfig,
        lower: LowerTable | None = None,
    ):
        started, valid = time.perf_counter(), take(tokens, [0])
        self.run = Run.prepare(model, tokens, valid, config, seed=0, lower=lower)
        self.compile_seconds = time.perf_counter() - started
        self.state, self.loss = self.run.fresh, float("nan")

    def step(self, number: int) -> int:
        """Take one step and return its tokens, without padding."""
        assert number == self.state.step
        self.state, record = self.run.step(self.state)
        self.loss = record["loss"]
        return record["tokens"]


def step_rows(tokens: Tokens, batch: int, number: int) -> np.ndarray:
    """Return the examples of a step, which are the same for ours and PyTorch's."""
    epoch, place = divmod(number, tokens.num_examples // batch)
    order = Order.of(tokens, 0).epoch(epoch)
    return order[place * batch : (place + 1) * batch]
