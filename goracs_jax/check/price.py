r"""What a check costs: trainings, tokens, FLOPs, and hours by a measured step.

Three steps of a real training are timed, and the loss on the judge. With s seconds a
step and F FLOPs in it, passes over the pool with P FLOPs in all take about P s / F
seconds, and R trainings of T steps about R (T s + seconds of the judge). Where the
layers below all adapters run once for all trainings, they are one of the passes, and
in no step.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.check.design import Sizes
from goracs_jax.check.features import sources_of
from goracs_jax.check.inputs import CheckInputs
from goracs_jax.comparison import charges
from goracs_jax.comparison.drawn import pool_of
from goracs_jax.errors import InputError
from goracs_jax.jobs.finetune import open_inputs, run, stage_of
from goracs_jax.jobs.select_config import GRADIENT, SUBSPACE
from goracs_jax.jobs.warm_up import POOL_EPOCHS
from goracs_jax.llm.flops import (
    Counts,
    encoder_flops,
    forward_flops,
    gradient_flops,
)
from goracs_jax.llm.lower import LowerTable
from goracs_jax.models import decoder_config
from goracs_jax.runs.opened import Pool, open_encoder, open_llm
from goracs_jax.runs.reading import tokenize_pool
from goracs_jax.settings import Check
from goracs_jax.spaces import Reward

PROBE_STEPS = 3
#: The least that sizes shrink to: with less, an interval leaves everything open.
LEAST = Sizes(
    rows=0, planted=200, repeats=3, pairs=8, quantiles=5, quantile_seeds=0, subsets=24
)


class Rates(NamedTuple):
    """What a probe measured, in seconds."""

    step: float
    judge: float


class Price(NamedTuple):
    """The work of a check, from which the cost of any sizes follows."""

    steps: int  # of a training
    step_tokens: float
    step_flops: float
    judge_flops: float
    pass_flops: float  # of all passes over one row of the pool
    fixed_flops: float  # of all passes over the target, and of the layers that run once
    spaces: int
    once: bool = False  # whether there are such layers

    def trainings(self, sizes: Sizes) -> int:
        """Count the trainings."""
        return sizes.trainings(self.spaces)

    def tokens(self, sizes: Sizes) -> float:
        """Count the tokens of all trainings."""
        return self.trainings(sizes) * self.steps * self.step_tokens

    def passes(self, sizes: Sizes) -> float:
        """Count the FLOPs of all that is not training."""
        return self.pass_flops * (sizes.rows + sizes.planted) + self.fixed_flops

    def flops(self, sizes: Sizes) -> float:
        """Count all FLOPs."""
        training = self.steps * self.step_flops + self.judge_flops
        return self.trainings(sizes) * training + self.passes(sizes)

    def seconds(self, sizes: Sizes, rates: Rates) -> float:
        """Estimate the seconds."""
        training = self.steps * rates.step + rates.judge
        passes = self.passes(sizes) * rates.step / self.step_flops
        return self.trainings(sizes) * training + passes


def price_of(settings: Check, inputs: CheckInputs, *, once: bool = True) -> Price:
    """Count tokens and FLOPs of a check; no weights of the LLM are read.

    Args:
        settings: The flags.
        inputs: The examples.
        once: Whether there is room for what the layers below all adapters make.

    Raises:
        InputError: An example does not fit the model.
    """
    s, scored = settings, inputs.training.scored
    config = decoder_config(s.model)
    llm = open_llm(s.model, s.adapter, s.seed, s, template=s.template)
    counts = lambda pool: Counts.of(tokenize_pool(pool, llm, scored))

    # The first rows stand for the pool, all of which may be large.
    some = _first(inputs.train, inputs.sizes.rows, s.out)
    pool, target = counts(some), counts(inputs.target.pool)

    def passes(of: Counts) -> float:
        """Count the passes of all sources over some examples."""
        states = lambda: forward_flops(config, Counts(of.tokens, 0 * of.tokens))
        gradients = lambda: gradient_flops(config, of, "all_lora")
        found: dict[str, Callable[[], float]] = {}
        found |= dict.fromkeys(("text", "states", "prompts"), states)
        found |= dict.fromkeys((GRADIENT, SUBSPACE), gradients)
        if s.encoder:
            encoder, _ = open_encoder(s.encoder).load()
            found["text"] = lambda: encoder_flops(encoder.config, of.tokens)
        names = [name for name in sources_of(inputs) if name in found]
        return sum((found[name]() for name in names), 0.0)

    of_pool = passes(pool)
    # An adapter for the pool and one for the planted rows, on as many rows.
    warm = 2 * POOL_EPOCHS * (s.adapter_from_pool or 0.0)
    of_pool += warm * gradient_flops(config, pool, "all_lora")
    if Reward("grad-norm") in inputs.rewards:
        of_pool += gradient_flops(config, pool, "last_v_lora_b")
    if Reward("loss-drop") in inputs.rewards:
        of_pool += 2 * forward_flops(config, pool)
    loop, count = inputs.training.loop, len(pool.tokens)
    examples = min(loop.batch_size, s.budget) / count
    frozen = inputs.training.lora.resolved(config).frozen_layers()
    once = once and frozen > 0
    judge = counts(inputs.judge.pool)
    sizes = charges.Sizes(config, None, pool, judge, pool.tokens, frozen)

    def trained(epochs: int, validations: int) -> float:
        """Count the FLOPs of going through pool and judge so often."""
        every = charges.Trained(np.arange(count), epochs, validations, once)
        return charges.training_flops(sizes, every)

    below = trained(0, 0)  # 0 where these layers are in every step
    return Price(
        steps=loop.total_steps(s.budget),
        step_tokens=float(pool.tokens.sum()) * examples,
        step_flops=(trained(1, 0) - below) * examples,
        judge_flops=trained(0, 1) - below,
        pass_flops=of_pool / count,
        fixed_flops=passes(target) + below,
        spaces=len(inputs.spaces),
        once=once,
    )


def probed(
    settings: Check,
    inputs: CheckInputs,
    pool: Pool,
    folder: Path,
    *,
    measure: bool,
    lower: LowerTable | None = None,
) -> Rates | None:
    """Time a short training, or read back what it took in an earlier run.

    So a check that goes on has the sizes with which it started.

    Args:
        settings: The flags.
        inputs: How adapters are trained, and the judge.
        pool: The examples of all trainings, of which it takes the first.
        folder: Where it is kept.
        measure: Whether to train where there is nothing to read back; else None.
        lower: What the trainings share.
    """
    config = inputs.training
    short = {"epochs": None, "steps": PROBE_STEPS, "warmup_steps": 0}
    config = replace(config, loop=replace(config.loop, **short, keep="last"))
    some = _first(pool, settings.budget, settings.out)
    given = open_inputs(settings, some, inputs.judge.pool, config)
    given = given._replace(lower=lower)
    if not measure and not stage_of(given, config, folder).is_done(folder):
        return None
    home = run(given, config, folder).folder
    lines = (home / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    steps = [e["seconds"] for e in entries if "valid_loss" not in e]
    judged = [e["seconds"] for e in entries if "valid_loss" in e]
    return Rates(min(steps), min(judged))  # the first of all compiles


def _first(pool: Pool, count: int, folder: Path) -> Pool:
    return pool_of(pool.examples[:count], folder, "first")


def fitted(
    price: Price, rates: Rates, asked: Sizes, limit: float | None, budget: int
) -> Sizes:
    """Take the largest sizes that fit a time limit.

    Args:
        price: The work.
        rates: What was measured.
        asked: The sizes that the flags give.
        limit: Seconds; None is no limit.
        budget: Rows of a subset.

    Raises:
        InputError: The least sizes do not fit.
    """
    for hundredths in range(100, -1, -1):
        sizes = shrunk(asked, hundredths / 100, budget)
        seconds = price.seconds(sizes, rates)
        if limit is None or seconds <= limit:
            return sizes
    raise InputError(
        f"--time-limit is too short: the least that tells anything, "
        f"{price.trainings(sizes)} trainings, takes about {duration(seconds)}; give "
        "more time, or cheaper trainings by --layers last:6, --steps or --batch-size."
    )


def shrunk(asked: Sizes, share: float, budget: int) -> Sizes:
    """Return about this share of the sizes, but at least the least that is useful.

    >>> shrunk(Sizes(4000, 1000, 8, 8, 5, 2, 60), 0.5, 256)[-2:]
    (1, 30)
    """
    least = LEAST._replace(rows=4 * budget, quantiles=asked.quantiles)
    pairs = zip(asked, least, strict=True)
    found = Sizes(*(max(int(share * of), min(of, low)) for of, low in pairs))
    return found._replace(planted=min(found.planted, found.rows))


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it.

    >>> duration(40.0), duration(600.0), duration(9000.0)
    ('40 seconds', '10 minutes', '2.5 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return (
        f"{seconds / 60:.0f} minutes"
        if seconds < 5400
        else f"{seconds / 3600:.1f} hours"
    )
