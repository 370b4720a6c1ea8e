"""Which trials may stand in one table, and what their models are like beside it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from goracs_jax.comparison.cells import METRICS, Finished, TrialFolder
from goracs_jax.comparison.design import Trial
from goracs_jax.evaluate.calibration import Fitted, is_far_too_sure
from goracs_jax.runs.records import read_record

Done = tuple[TrialFolder, Finished]


def of_one_kind(finished: Sequence[Done]) -> tuple[list[Done], list[str]]:
    """Keep the trials that were trained on the most common kind of device.

    Other devices round otherwise, so that they train other models.

    Args:
        finished: The trials that are done, at least one.

    Returns:
        Those that are kept, and a note that names the others, if there are any.
    """
    kinds = Counter(done.device["kind"] for _, done in finished)
    usual = kinds.most_common(1)[0][0]
    kept = [pair for pair in finished if pair[1].device["kind"] == usual]
    left = [
        f"{done.trial} ({done.device['kind']})"
        for _, done in finished
        if done.device["kind"] != usual
    ]
    if not left:
        return kept, []
    return kept, [
        f"All models of the table were trained on one kind of device ({usual}). Left "
        f"out are: {'; '.join(left)}."
    ]


def diagnosed(finished: Sequence[Done]) -> list[str]:
    """Say which models are far too sure, and how much of a catalogue models cover.

    Args:
        finished: The trials of the table; metrics.json of each has its diagnostics.

    Returns:
        At most two lines.
    """
    sure: dict[str, list[float]] = {}
    covered: dict[str, list[float]] = {}
    for place, done in finished:
        record = read_record(place.folder / METRICS) or {}
        found: Mapping[str, Any] = record.get("diagnostics", {})
        name = _name(done.trial)
        if calibration := found.get("calibration"):
            fits = [Fitted(**each) for each in calibration["fits"]]
            if is_far_too_sure(fits, calibration["margin_sd"]):
                sure.setdefault(name, []).append(np.mean([f.a for f in fits]).item())
        if exposure := found.get("exposure"):
            covered.setdefault(name, []).append(exposure["coverage@10"])
    notes = []
    if sure:
        said = [f"{name} ({_mean(a)}, seeds: {len(a)})" for name, a in sure.items()]
        notes.append(
            "Far too sure, by what their margins fit best when multiplied by: "
            f"{'; '.join(said)}."
        )
    if covered:
        said = [f"{name} {_mean(share)}" for name, share in covered.items()]
        notes.append(
            "coverage@10, the share of all items that rank among the ten first of an "
            f"example: {'; '.join(said)}."
        )
    return notes


def _name(trial: Trial) -> str:
    weight = "" if trial.lambda_ is None else f", lambda {trial.lambda_:g}"
    return f"{trial.method}{weight} of {trial.budget}"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3g}"
