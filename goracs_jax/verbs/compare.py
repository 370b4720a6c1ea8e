"""`goracs compare`: methods, budgets, lambdas and seeds; a table and a picture out."""

import json
from typing import Any, NamedTuple

from goracs_jax.comparison.charges import Sizes
from goracs_jax.comparison.design import (
    BY_LABEL,
    FULL,
    WEIGHED,
    Cell,
    design,
    selector_of,
)
from goracs_jax.comparison.picture import comparison_figure
from goracs_jax.comparison.results import Units, entries_of, pairs_of
from goracs_jax.comparison.table import (
    as_csv,
    as_markdown,
    headline,
    notes_of,
    records_of,
)
from goracs_jax.cost import check_lambda
from goracs_jax.data.examples import check_duplicates
from goracs_jax.errors import InputError
from goracs_jax.files import atomic, hash_files, locked, prepare_folder, write_json
from goracs_jax.llm.embeddings import encoder_tokens
from goracs_jax.llm.flops import Counts
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.opened import (
    Pool,
    bytes_to_store,
    embedded_texts,
    hash_model,
    keep_apart,
    open_encoder,
    open_llm,
    read_pool,
    tokenize_pool,
)
from goracs_jax.runs.say import say, waiting
from goracs_jax.selection.classes import class_budgets
from goracs_jax.selection.method import METHODS
from goracs_jax.selection.problem import check_budget, check_memory
from goracs_jax.settings import Compare, Evaluate, Judging
from goracs_jax.verbs.evaluate import bootstrap_of, check, make_plan
from goracs_jax.verbs.finetune import training_config
from goracs_jax.verbs.labels import labels_of
from goracs_jax.verbs.trial import (
    Place,
    Shared,
    outcome_of,
    place_of,
    run_cell,
    shared_settings,
)

DEFAULT_LAMBDAS = (0.1,)


class Inputs(NamedTuple):
    """The files of a comparison, read and checked."""

    train: Pool
    valid: Pool
    test: Pool
    units: Units  # the user of each test example
    hashes: dict[str, str | None]  # of all that is read, models too


def compare(settings: Compare) -> None:
    """Run `goracs compare`."""
    _check_settings(settings)
    inputs = _read(settings)
    n_train = len(inputs.train.examples)
    cells = _cells(settings, n_train)
    places = [place_of(settings, cell, inputs.hashes) for cell in cells]
    todo = [place for place in places if place.record() is None]
    missing = todo if settings.finished else []
    if settings.finished:
        places, todo = _done(settings, places, todo), []
    shared = Shared(settings, [place.cell for place in todo])
    if settings.dry_run:
        _say_plan(places, todo, shared)
        return
    prepare_folder(settings.out, bytes_to_store(n_train + len(inputs.valid.examples)))
    with locked(settings.out / "cells"):
        if todo:
            sizes = _prepare(settings, inputs)
            (settings.out / "comparison.json").unlink(missing_ok=True)
            shared.compute()
            for place in todo:
                say(f"cell {places.index(place) + 1} of {len(places)}: {place.cell}")
                run_cell(settings, place, shared, sizes)
        _write(settings, places, missing, inputs.units)


def _done(settings: Compare, places: list[Place], todo: list[Place]) -> list[Place]:
    """Those of the cells that a table of what is finished can have."""
    done = [place for place in places if place not in todo]
    if not done:
        raise InputError(
            f"{settings.out} has no finished cell of this comparison: leave --finished "
            "out, and it is started."
        )
    say(f"{len(done)} of {len(places)} cells are done")
    return done


def _check_settings(settings: Compare) -> None:
    """What can be refused before a file is read."""
    known = [*METHODS, FULL]
    selectors = {selector_of(method) for method in settings.methods}
    for method in settings.methods:
        if selector_of(method) not in known or method == FULL + BY_LABEL:
            raise InputError(
                f"--methods must be among {', '.join(known)}, all but {FULL} with or "
                f"without {BY_LABEL}, got {method!r}."
            )
    if settings.lambdas and not selectors & set(WEIGHED):
        raise InputError(
            f"--lambdas are for {', '.join(WEIGHED)}, and none of them is in --methods:"
            " leave them out."
        )
    for lambda_ in settings.lambdas or ():
        check_lambda(lambda_)
    if not 1 <= settings.seeds <= 2**32 - settings.seed:
        raise InputError(f"--seeds must be at least 1, got {settings.seeds}.")
    if not 1 <= settings.full_seeds <= settings.seeds:
        raise InputError(
            f"--full-seeds must be in [1, {settings.seeds}], the number of seeds, got "
            f"{settings.full_seeds}."
        )
    if settings.out.exists() and not settings.out.is_dir():
        raise InputError(f"--out {settings.out} is a file: give a folder.")
    keep_apart(settings.out, settings.model, settings.encoder, settings.adapter)
    training_config(settings)
    check(_judged(settings))


def _read(settings: Compare) -> Inputs:
    train, valid, test = map(read_pool, (settings.train, settings.valid, settings.test))
    n_train = len(train.examples)
    config, _ = training_config(settings)
    sizes = [n_train if FULL in settings.methods else None, *settings.budgets]
    for budget in settings.budgets:
        check_budget(n_train, budget)
    for size in filter(None, sizes):
        config.schedule(config.total_steps(size))
    if set(settings.methods) != {FULL}:
        check_memory(max(settings.budgets), len(valid.examples))
    if any(method.endswith(BY_LABEL) for method in settings.methods):
        labels = labels_of(train, valid)
        for budget in settings.budgets:
            class_budgets(labels, budget)
    if settings.duplicates == "refuse":
        check_duplicates(train.examples)
    units = bootstrap_of(_judged(settings), test).units
    return Inputs(train, valid, test, units, _hashes(settings, train, valid, test))


def _judged(settings: Compare) -> Evaluate:
    """The evaluation of the model as it is: what all cells ask of the test file."""
    return Evaluate(
        **shared_settings(settings, Judging),
        task=settings.task,
        model=settings.model,
        dtype=settings.dtype,
        out=settings.out / "metrics.json",
    )


def _hashes(settings: Compare, *pools: Pool) -> dict[str, str | None]:
    names = ("train", "valid", "test")
    items = settings.items or settings.test.with_name("items.jsonl")
    ranked = settings.task == "seqrec" and items.exists()
    models = {name: getattr(settings, name) for name in ("model", "adapter", "encoder")}
    return {
        **{name: pool.sha256 for name, pool in zip(names, pools, strict=True)},
        "items": hash_files(items) if ranked else None,
        **{name: path and hash_model(path) for name, path in models.items()},
    }


def _cells(settings: Compare, n_train: int) -> list[Cell]:
    return design(
        settings.methods,
        settings.budgets,
        DEFAULT_LAMBDAS if settings.lambdas is None else settings.lambdas,
        range(settings.seed, settings.seed + settings.seeds),
        full_seeds=settings.full_seeds,
        n_train=n_train,
    )


def _say_plan(places: list[Place], todo: list[Place], shared: Shared) -> None:
    if todo:
        shared.compute(dry_run=True)
    for place in places:
        started = "started" if place.folder.exists() else "to do"
        state = started if place in todo else "done"
        say(f"{place.cell}: {state}, {place.folder}")
    say(f"{len(places)} cells: {len(places) - len(todo)} done, {len(todo)} to do")


def _prepare(settings: Compare, inputs: Inputs) -> Sizes:
    """Tokenises all that will be read: what does not fit shows now. The model goes."""
    _, labels = training_config(settings)
    with waiting("tokens of all examples"):
        llm = open_llm(settings.model, None, settings.seed, settings.dtype)
        judged = _judged(settings)
        for stage in make_plan(judged, inputs.test, llm, settings.out).stages:
            stage.prepare()
        pools = (inputs.train, inputs.valid)
        train, valid = (
            Counts.of(tokenize_pool(pool.prompts, pool.places, llm, labels))
            for pool in pools
        )
        texts = [text for pool in pools for text in embedded_texts(pool, labels)]
        if settings.encoder:
            encoder, tokenizer = open_encoder(settings.encoder).load()
            joined = [text.prompt + text.answer for text in texts]
            tokens, _ = encoder_tokens(encoder, tokenizer, joined)
            config = encoder.config
        else:
            places = [place for pool in pools for place in pool.places]
            tokens, config = tokenize_pool(texts, places, llm), None
        decoder, _ = llm.load()
        return Sizes(decoder.config, config, train, valid, tokens.lengths)


def _machines(record: dict[str, Any]) -> set[str]:
    """What trained the model of a cell, and what chose its rows."""
    devices = (record["device"], record.get("chosen_on"))
    return {json.dumps(device, sort_keys=True) for device in devices if device}


def _write(
    settings: Compare, places: list[Place], missing: list[Place], units: Units
) -> None:
    """The files of the contract; comparison.json goes first and comes last."""
    out, cells, outcomes, machines = settings.out, [], {}, set()
    (out / "comparison.json").unlink(missing_ok=True)
    for place in places:
        record = place.record()
        assert record is not None  # all are done
        outcomes[place.cell] = outcome_of(settings, place, record)
        machines |= _machines(record)
        cells.append({"folder": str(place.folder.relative_to(out)), **record})
    entries = entries_of(outcomes)
    pairs = pairs_of(entries, units)
    records = records_of(entries, pairs, units)
    users, epoch_flops = int(units.max()) + 1, cells[0]["epoch_flops"]
    notes = notes_of(records, users=users, epoch_flops=epoch_flops)
    if missing:
        names = "; ".join(str(place.cell) for place in missing)
        notes.append(f"Not all cells are done. Missing: {names}.")
    if len(machines) > 1:
        notes.append("Seconds are those of several machines: compare FLOPs instead.")
    table = as_markdown(records, notes)
    for name, text in (("table.md", table), ("table.csv", as_csv(records))):
        with atomic(out / name) as file:
            file.write(text.encode())
    picture = comparison_figure(records, headline(list(records[0]["metrics"]))[0])
    with atomic(out / "comparison.png") as file:
        picture.savefig(file, format="png", dpi=110)
    plain = lambda pair: pair._asdict() | {"difference": pair.difference._asdict()}
    comparison = made_by(settings) | {
        "rows": records,
        "pairs": [plain(pair) for pair in pairs],
        "users": users,
        "epoch_flops": epoch_flops,
        "notes": notes,
        "cells": cells,
    }
    write_json(out / "comparison.json", comparison)
    say(table.rstrip())
    say(f"{out}: table.md, table.csv, comparison.json, comparison.png")
