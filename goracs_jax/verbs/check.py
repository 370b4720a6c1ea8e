"""`goracs check`: do distances or rewards tell what trains a better model?"""

from typing import Any

from goracs_jax.check.design import Sizes
from goracs_jax.check.examine import examine
from goracs_jax.check.features import check_models, features_of, sides_of
from goracs_jax.check.inputs import (
    CheckInputs,
    drawn_of,
    flags_of,
    read_inputs,
    with_defaults,
)
from goracs_jax.check.price import Price, Rates, duration, fitted, price_of, probed
from goracs_jax.check.recommend import recommend
from goracs_jax.check.trained import lower_states, trainer
from goracs_jax.check.written import write
from goracs_jax.files import locked, prepare_folder
from goracs_jax.jobs.finetune import BYTES
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.outputs import bytes_to_store
from goracs_jax.runs.pools import save_left_out
from goracs_jax.runs.say import say
from goracs_jax.settings import Check
from goracs_jax.settings.outputs import SKIPPED


def check(settings: Check) -> None:
    """Run `goracs check`."""
    settings = with_defaults(settings)
    out, cells = settings.out, settings.out / "cells"
    inputs = read_inputs(settings)
    price = price_of(settings, inputs)
    asked, probe = drawn_of(inputs, inputs.sizes, settings).pool.pool, cells / "probe"
    if settings.dry_run:
        check_models(settings, inputs)
        rates = probed(settings, inputs, asked, probe, measure=False)
        _say_price(settings, inputs, price, rates)
        kept = len(list(cells.glob("stages/finetune-*/done.json")))
        say(f"trainings that are done in {cells}: {kept}")
        return
    prepare_folder(out, BYTES + bytes_to_store(inputs.sizes.rows))
    with locked(cells):
        # Of all rows that are asked for: how many fit a time limit is not known yet.
        lower = lower_states(settings, inputs, asked, cells)
        if price.once and lower is None:
            price = price_of(settings, inputs, once=False)
        rates = probed(settings, inputs, asked, probe, measure=True, lower=lower)
        sizes = _say_price(settings, inputs, price, rates)
        drawn = drawn_of(inputs, sizes, settings)
        sides = sides_of(settings, inputs, drawn, out / "arrays")
        pool, planted = features_of(inputs, drawn, sides, out / "arrays")
        total = price.trainings(sizes)
        shared: dict[str, Any] = {"total": total, "lower": lower}
        train = trainer(settings, inputs, drawn.pool.pool, cells, **shared)
        found = examine(
            pool, planted, train, sizes, settings.budget, seed=settings.seed
        )
    advice = recommend(found, flags_of(settings, inputs, drawn))
    cost = {"trainings": len(found.runs), "flops": price.flops(sizes)}
    save_left_out(out / SKIPPED, inputs.skipped)
    made: dict[str, Any] = made_by(settings, inputs.skipped)
    made["leakage"] = inputs.leaked._asdict()
    write(out, found, advice, made | {"sizes": sizes._asdict(), "cost": cost})


def _say_price(
    settings: Check, inputs: CheckInputs, price: Price, rates: Rates | None
) -> Sizes:
    """Say what the check costs, and with a time limit what it shrinks to."""
    sizes = inputs.sizes
    if rates:
        sizes = fitted(price, rates, sizes, inputs.limit, settings.budget)
        if sizes != inputs.sizes:
            asked = price.trainings(inputs.sizes)
            long = duration(price.seconds(inputs.sizes, rates))
            say(f"all {asked} trainings would take about {long}; for the time limit:")
    say(
        f"{sizes.rows} training examples, {len(inputs.target.rows)} of the target, "
        f"{len(inputs.judge.rows)} that judge; {sizes.planted} with planted mistakes"
    )
    trainings, tokens = price.trainings(sizes), price.tokens(sizes)
    long = duration(price.seconds(sizes, rates)) if rates else "a time to be measured"
    say(
        f"{trainings} trainings of {price.steps} steps: {sizes.repeats} of one subset, "
        f"{sizes.pairs} second ones, {sizes.quantile_seeds} of each of "
        f"{sizes.quantiles} ranges of distance, {sizes.subsets} subsets"
    )
    say(f"{tokens:.2e} tokens, {price.flops(sizes):.2e} FLOPs, about {long}")
    return sizes
