"""What a training shows while it runs: how much is trained, and a bar of its tokens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from flax import nnx

from goracs_jax.llm.tokens import Tokens
from goracs_jax.models import Decoder
from goracs_jax.models.peft import count_trained
from goracs_jax.runs.progress import progress
from goracs_jax.runs.say import say
from goracs_jax.training import FinetuneConfig
from goracs_jax.training.checkpoint import LogEntry


@contextmanager
def watched(
    loop: FinetuneConfig, train: Tokens
) -> Iterator[Callable[[LogEntry], None]]:
    """Show a bar of the tokens of a training.

    Args:
        loop: The settings of the training.
        train: The training examples.

    Yields:
        The function that takes every new entry of the log.
    """
    count = train.num_examples
    steps, per_epoch = loop.total_steps(count), loop.steps_per_epoch(count)
    tokens = steps * int(train.lengths.sum()) // per_epoch
    with progress() as bar:
        task = bar.add_task("tokens", total=tokens)

        def watch(entry: LogEntry) -> None:
            # A resumed run knows its step, not its tokens; steps are of about equal
            # size.
            so_far = tokens * entry["step"] // steps
            what = _describe(entry, steps)
            bar.update(task, completed=so_far, description=what)

        yield watch


def say_size(decoder: Decoder) -> None:
    """Say how many parameters are trained, and of how many."""
    trained = count_trained(decoder)
    whole = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(decoder)))
    share = 100 * trained / whole
    say(f"{trained:,} of {whole:,} parameters are trained ({share:.3g} %)")


def _describe(entry: LogEntry, steps: int) -> str:
    kind = "valid_loss" if "valid_loss" in entry else "loss"
    name = kind.replace("_", " ")
    place = f"epoch {entry['epoch']}, step {entry['step']}/{steps}"
    return f"{place}, {name} {entry[kind]:.4f}"
