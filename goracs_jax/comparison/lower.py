"""What the layers below all adapters make of the texts of a comparison, made once."""

from collections.abc import Iterable
from pathlib import Path

from goracs_jax.comparison.design import Trial
from goracs_jax.comparison.inputs import CompareInputs, is_calibrated_by_target
from goracs_jax.evaluate.ctr import ask
from goracs_jax.llm.lower import LowerTable
from goracs_jax.models import decoder_config
from goracs_jax.runs.lower import keep_states
from goracs_jax.runs.opened import open_llm, tokenize_pool
from goracs_jax.settings import Compare


def lower_states(
    settings: Compare, inputs: CompareInputs, trials: Iterable[Trial], folder: Path
) -> LowerTable | None:
    """Run the layers below all adapters over the texts of all trials, once.

    Args:
        settings: The flags of the comparison.
        inputs: Its files.
        trials: The trials that are to be done.
        folder: Where the states are kept.

    Returns:
        The states; None where `goracs_jax.runs.lower.keep_states` gives none.
    """
    s, training = settings, inputs.training
    if not training.lora.resolved(decoder_config(s.model)).frozen_layers():
        return None  # without a look at the weights
    llm = open_llm(s.model, s.adapter, s.seed, s, lora=training.lora, untrained="warn")
    pools = [
        tokenize_pool(pool.prompts, pool.places, llm, training.scored)
        for pool in (inputs.train, inputs.valid)
    ]
    tested = 0
    if s.task == "ctr":
        decoder, tokenizer = llm.load()
        context, asked = decoder.config.max_positions, [inputs.test]
        if is_calibrated_by_target(s):
            asked.append(inputs.valid)
        for pool in asked:
            pools.append(ask(pool.examples, tokenizer, context=context).tokens)
            tested += len(pool.examples)
    n_valid = len(inputs.valid.examples)
    reads = (training.loop.reads(t.budget, n_valid) + tested for t in trials)
    return keep_states(folder, llm, pools, sum(reads))
