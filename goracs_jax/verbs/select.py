"""`goracs select`: files in; indices, coreset, scores, manifest and picture out."""

from collections.abc import Callable
from functools import cache

import jax
import numpy as np

from goracs_jax.cost import Cost, make_cost
from goracs_jax.errors import InputError
from goracs_jax.files import locked, prepare_folder
from goracs_jax.selection import SELECTORS
from goracs_jax.selection import select as select_rows
from goracs_jax.selection.problem import (
    Selection,
    Step,
    check_budget,
    check_memory,
    transport_bytes,
)
from goracs_jax.settings import Select
from goracs_jax.stages import Arrays, Result, Stage, run_stage
from goracs_jax.verbs.inputs import bytes_to_store, keep_apart
from goracs_jax.verbs.results import Chosen, write_results
from goracs_jax.verbs.say import say, waiting
from goracs_jax.verbs.sources import Source, from_arrays, from_texts

BASELINE = "random"


def select(settings: Select) -> None:
    """Run `goracs select`."""
    if settings.method not in SELECTORS:
        raise InputError(
            f"--method must be one of {', '.join(SELECTORS)}, got {settings.method!r}."
        )
    keep_apart(settings.out, settings.model, settings.encoder, settings.adapter)
    by_arrays = settings.train_embeddings or settings.valid_embeddings
    source = from_arrays(settings) if by_arrays else from_texts(settings)
    check_budget(source.n_train, settings.budget)
    check_memory(settings.budget, source.n_valid)
    out = settings.out

    @cache
    def made() -> dict[str, Result]:
        for stage in source.stages.values():
            if not stage.is_done(out):
                stage.prepare()
        return {
            symbol: run_stage(out, stage) for symbol, stage in source.stages.items()
        }

    @cache
    def arrays() -> Arrays:
        computed = {s: next(iter(r.arrays.values())) for s, r in made().items()}
        return source.arrays | computed

    @cache
    def cost() -> Cost:
        xyg = arrays()
        return make_cost(xyg["x"], xyg["y"], xyg.get("g"), source.lambda_)

    methods = dict.fromkeys([settings.method, BASELINE])
    stages = {m: _selection_stage(m, settings, source, cost, arrays) for m in methods}
    if settings.dry_run:
        _say_plan(settings, source, [*source.stages.values(), *stages.values()])
        return
    rows = source.n_train + source.n_valid if source.stages else 0
    prepare_folder(out, bytes_to_store(rows))
    with locked(out / "stages"):
        cost()  # with all progress bars, before the spinners
        chosen = []
        for method, stage in stages.items():
            with waiting(f"selection by {method}"):
                result = run_stage(out, stage)
            selection = _selection(result.arrays)
            chosen.append(Chosen(method, selection, result.seconds))
        write_results(settings, source, arrays(), cost(), made(), chosen)


def _selection_stage(
    method: str,
    settings: Select,
    source: Source,
    cost: Callable[[], Cost],
    arrays: Callable[[], Arrays],
) -> Stage:
    inputs = {
        **source.identity,
        "budget": settings.budget,
        "lambda": source.lambda_,
        "method": method,
        "solver": settings.solver,
        "seed": settings.seed,
    }

    def compute(_: object) -> Arrays:
        key = jax.random.key(settings.seed)
        found = select_rows(
            cost(),
            settings.budget,
            key=key,
            method=method,
            solver=settings.solver,
            grad_norms=arrays().get("g"),
            errors=arrays().get("e"),
        )
        return {name: np.asarray(value) for name, value in found._asdict().items()}

    return Stage(f"selection {method}", inputs, compute)


def _selection(arrays: Arrays) -> Selection:
    """A selection from the arrays that its stage stored."""
    trace = (Step(poo, at, int(replaced)) for poo, at, replaced in arrays["trace"])
    return Selection(
        arrays["indices"],
        float(arrays["objective"]),
        float(arrays["lower_bound"]),
        tuple(trace),
        bool(arrays["converged"]),
    )


def _say_plan(settings: Select, source: Source, stages: list[Stage]) -> None:
    n, n_train, n_valid = settings.budget, source.n_train, source.n_valid
    say(f"{n} of {n_train} training examples for {n_valid} validation examples")
    for stage in stages:
        say(f"{stage.name}: {'done' if stage.is_done(settings.out) else 'to do'}")
    say(f"transport of {n} x {n_valid}: {transport_bytes(n, n_valid) / 2**20:.0f} MiB")
    say(f"results: {settings.out}")
