"""What a task computes for its test examples, and the plan of click prediction."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from goracs_jax.errors import InputError
from goracs_jax.evaluate.calibration import cross_fitted, fit
from goracs_jax.evaluate.ctr import Questions, ask, read_answers, yes_margins
from goracs_jax.evaluate.metrics import Bootstrap, Estimate, auc, check_classes, means
from goracs_jax.evaluate.outcomes import values_of
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.lower import LowerTable
from goracs_jax.models import Decoder
from goracs_jax.runs.opened import Llm, Pool
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.stages import Arrays, Stage


class Judgement(NamedTuple):
    """Metrics with their intervals, a record per example, and what else there is."""

    metrics: dict[str, Estimate]
    predictions: Iterable[dict]
    diagnostics: dict[str, Any]  # of JSON's types


class Plan(NamedTuple):
    """The stages to run, how their arrays are judged, and sizes to report."""

    stages: Sequence[Stage]
    judge: Callable[[Mapping[str, Arrays], Bootstrap], Judgement]
    sizes: Mapping[str, int]
    rows: int  # texts for which arrays are stored


def plan_ctr(
    pool: Pool, llm: Llm, target: Pool | None, lower: LowerTable | None = None
) -> Plan:
    """Plan click prediction: AUC, and the log likelihood raw and calibrated.

    Args:
        pool: The test examples.
        llm: The model.
        target: The examples that the two numbers of the calibration are fitted on;
            without them, those of one half of the test users are fitted on the other.
        lower: What the layers below all adapters make of the prompts, if it was kept.

    Raises:
        InputError: An output is neither Yes nor No, or all are the same, or a test
            example is among the target.
    """
    positive = read_answers(pool.examples)
    check_classes(positive)
    stages = [_margins("margins", pool, llm, lower)]
    if target:
        _check_apart(target, pool)
        known = read_answers(target.examples)
        stages.append(_margins("target margins", target, llm, lower))

    def judge(arrays: Mapping[str, Arrays], bootstrap: Bootstrap) -> Judgement:
        z = arrays["margins"]["margins"]
        if target:
            fits = [fit(arrays["target margins"]["margins"], known)]
            calibrated = fits[0](z)
        else:
            calibrated, fits = cross_fitted(z, positive, bootstrap.units)
        columns = {
            "label": np.where(positive, "Yes", "No").tolist(),
            "score": expit(z.astype(np.float64)).tolist(),
            "margin": z.tolist(),
            "calibrated_margin": calibrated.tolist(),
        }
        predictions = [
            {"example": i, **dict(zip(columns, row, strict=True))}
            for i, row in enumerate(zip(*columns.values(), strict=True))
        ]
        values = values_of("ctr", predictions)
        found = {"AUC": auc(positive, z, bootstrap)}
        found |= means({k: v for k, v in values.items() if k != "AUC"}, bootstrap)
        calibration = {
            "fitted_on": target.sha256 if target else "the other half of the users",
            "fits": [each._asdict() for each in fits],
            "margin_sd": float(z.std()),
        }
        return Judgement(found, predictions, {"calibration": calibration})

    sizes = {"Yes": int(positive.sum()), "No": int((~positive).sum())}
    rows = len(positive) + (len(target.examples) if target else 0)
    return Plan(stages, judge, sizes, rows)


def _margins(name: str, pool: Pool, llm: Llm, lower: LowerTable | None) -> Stage:
    """Make the stage of the margins of Yes over No, one forward pass per prompt."""

    @cache
    def prepare() -> tuple[Decoder, Questions]:
        questions = questions_of(pool, llm)
        return llm.decoder(), questions

    def compute(mapper: Mapper) -> Arrays:
        return {"margins": yes_margins(*prepare(), mapper=mapper, lower=lower)}

    inputs = {"test": pool.sha256, **llm.identity}
    return Stage(name, inputs, compute, prepare, revision_of("answers"))


def questions_of(pool: Pool, llm: Llm) -> Questions:
    """Write and tokenise the prompts of a pool, and the two answers; see `ask`."""
    context, template = llm.config().max_positions, llm.template(pool.form)
    return ask(pool.examples, llm.tokenizer(), context=context, template=template)


def _check_apart(target: Pool, pool: Pool) -> None:
    """Refuse test examples that the calibration would be fitted on."""
    places = {json.dumps(example.record): example.place for example in target.examples}
    for example in pool.examples:
        if (same := places.get(json.dumps(example.record))) is not None:
            raise InputError(
                f"{example.place} is in --calibrate-on, too ({same}): the numbers of a "
                "calibration must not be fitted on what they are judged by."
            )
