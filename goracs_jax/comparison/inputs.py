"""What a comparison reads: its files and flags, checked before any work."""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from goracs_jax.choices import Scored
from goracs_jax.comparison.charges import Sizes
from goracs_jax.comparison.design import FULL, Arm, Trial, design
from goracs_jax.comparison.drawn import (
    Draw,
    check_counts,
    draw,
    halves,
    judged_with,
    pool_of,
)
from goracs_jax.comparison.flags import check_flags, training_of
from goracs_jax.comparison.steps import check_tokens
from goracs_jax.comparison.tuning import tuning_trials
from goracs_jax.data.skipped import Skipped
from goracs_jax.evaluate.ctr import read_answers
from goracs_jax.evaluate.metrics import Bootstrap
from goracs_jax.inputs.parts import hash_input
from goracs_jax.jobs.classes import check_budgets
from goracs_jax.jobs.evaluate import EvaluateConfig, bootstrap_of, generated, prepare
from goracs_jax.jobs.leakage import Leaked, rows_to_keep
from goracs_jax.jobs.train_config import TrainConfig
from goracs_jax.llm.conversations import is_chat
from goracs_jax.llm.embeddings import encoder_tokens
from goracs_jax.llm.flops import Counts
from goracs_jax.llm.template_choice import TemplateChoice, encoder_template
from goracs_jax.runs.opened import (
    Pool,
    hash_model,
    open_encoder,
    open_llm,
)
from goracs_jax.runs.pools import left_out, limit_of, read_pools
from goracs_jax.runs.reading import (
    embedded_in,
    embedded_texts,
    scored_in,
    tokenize_pool,
    tokenize_texts,
)
from goracs_jax.runs.say import waiting
from goracs_jax.selection.problem import check_memory
from goracs_jax.settings import Compare, Evaluate, Judging, Machine, Reading

DEFAULT_LAMBDAS = (0.1,)


class CompareInputs(NamedTuple):
    """The files of a comparison, read and checked, and the trials that it asks for."""

    train: Pool
    valid: Pool  # or the half of it that is the target
    test: Pool  # with the other half, where there is one and its records allow it
    judged: int | None  # validation examples among them
    bootstrap: Bootstrap  # its units are the users of what is judged
    draws: dict[int, Draw]  # by seed
    hashes: dict[str, str | None]  # of all that is read, models too
    training: TrainConfig  # of the first seed
    judging: EvaluateConfig
    trials: list[Trial]
    tuning: list[Trial]  # which decide the learning rates of the others
    leaked: Leaked  # training examples that copy what validates or tests
    skipped: list[Skipped]  # records that were left out

    @property
    def pools(self) -> list[Pool]:
        """All that is embedded, trained on, validated or judged."""
        drawn = ((each.train, each.valid) for each in self.draws.values())
        return [self.train, self.valid, self.test, *chain.from_iterable(drawn)]

    def hashes_of(self, trial: Trial) -> dict[str, str | None]:
        """Return the hashes of what a trial reads, without that of the encoder."""
        drawn = self.draws[trial.seed]
        pools = {"train": drawn.train.sha256, "valid": drawn.valid.sha256}
        rest = {name: sha for name, sha in self.hashes.items() if name != "encoder"}
        return rest | pools


def read_inputs(settings: Compare) -> CompareInputs:
    """Read and check what the flags of `goracs compare` ask for; nothing is computed.

    Raises:
        InputError: The first flag or file that is wrong.
    """
    s, kept = settings, settings.out / "shared"
    check_flags(s)
    training = training_of(s)
    judging = EvaluateConfig.of(judged_settings(s, s.out / "metrics.json"))
    read = _read(s, training.scored)
    training = training.reading(read[0], s.labels)
    skipped, (train, valid, test) = left_out(*read), (_own(s, pool) for pool in read)
    train, leaked = _without_copies(s, train, {"validation": valid, "test": test})
    judged = None
    if s.split_valid:
        valid, half = halves(valid, kept)
        if both := judged_with(test, half, s.task, kept):
            test, judged = both, len(half.examples)
    if is_calibrated_by_target(s):
        read_answers(valid.examples)  # refused now, not behind the first training
    counts = (s.draw_train, s.draw_valid)
    check_counts(counts, (train, valid))
    n_train = len(train.examples) if s.draw_train is None else s.draw_train
    n_valid = len(valid.examples) if s.draw_valid is None else s.draw_valid
    check_budgets(s.budgets, n_train)
    for size in [*([n_train] if FULL in s.methods else []), *s.budgets]:
        training.check_size(size)
    if set(s.methods) != {FULL}:
        check_memory(max(s.budgets), n_valid)
    for method in s.methods:
        if method != FULL:
            Trial(method, None, 1, 0).config.check(n_valid)
    bootstrap = bootstrap_of(test, judging)
    trials = design(
        s.methods,
        s.budgets,
        DEFAULT_LAMBDAS if s.lambdas is None else s.lambdas,
        range(s.seed, s.seed + s.seeds),
        full_seeds=s.full_seeds,
        n_train=n_train,
    )
    tuning = tuning_trials(s, trials)
    seeds = dict.fromkeys(trial.seed for trial in (*tuning, *trials))
    draws = {seed: draw(train, valid, counts, seed, kept) for seed in seeds}
    if any(Arm.parse(method).by_label for method in s.methods):
        for drawn in draws.values():
            check_budgets(s.budgets, n_train, drawn.classes)
    hashes = _hashes(s, judging.items, test) | _reading(s, train)
    rest = (draws, hashes, training, judging, trials, tuning, leaked, skipped)
    return CompareInputs(train, valid, test, judged, bootstrap, *rest)


def _read(s: Compare, default: Scored) -> list[Pool]:
    """Read training, validation and test examples."""
    scored = partial(scored_in, labels=s.labels, default=default)
    limit = limit_of(s, s.model, scored=scored)
    test_limit = limit_of(s, s.model, room=generated(s))
    given = {"flags": s, "duplicates": s.duplicates}
    both = read_pools(s.train, s.valid, limit=limit, **given)
    return [*both, *read_pools(s.test, limit=test_limit, flags=s)]


def _own(settings: Compare, pool: Pool) -> Pool:
    """Make what is left of a pool a file of its own, if it is not the whole file."""
    if not pool.uncut and pool.of_file.is_all:
        return pool
    name = {settings.train: "train", settings.valid: "valid"}.get(pool.path, "test")
    return pool_of(pool.examples, settings.out / "shared", name)


def _without_copies(
    settings: Compare, train: Pool, others: Mapping[str, Pool]
) -> tuple[Pool, Leaked]:
    """Count the copies in the pool; what is left of it is a file of its own."""
    kept, leaked = rows_to_keep(train, others, settings)
    if kept.is_all:
        return train, leaked
    rest = [train.examples[row] for row in kept.rows]
    return pool_of(rest, settings.out / "shared", "train"), leaked


def judged_settings(
    settings: Compare,
    out: Path,
    adapter: Path | None = None,
    seed: int = 0,
    test: Path | None = None,
    target: Path | None = None,
) -> Evaluate:
    """Make the flags that evaluate a trial's adapter, or the model as it is.

    Args:
        settings: The flags of the comparison.
        out: The file of metrics.
        adapter: The folder of the adapter.
        seed: The seed of the trial.
        test: The file of all that is judged, where it is not that of --test.
        target: The file of the target, on which click prediction is calibrated where
            validation is cut in two.
    """
    flags = Evaluate(
        **shared_settings(settings, Judging),
        **shared_settings(settings, Machine),
        **shared_settings(settings, Reading),
        task=settings.task,
        model=settings.model,
        out=out,
        adapter=adapter,
        seed=seed,
        calibrate_on=target if is_calibrated_by_target(settings) else None,
    )
    if not test or test == settings.test:
        return flags
    beside = settings.test.with_name("items.jsonl")
    return replace(flags, test=test, items=settings.items or beside)


def is_calibrated_by_target(settings: Compare) -> bool:
    """Tell whether models are calibrated on the target half of validation."""
    return settings.split_valid and settings.task == "ctr"


def shared_settings(settings: Compare, kind: type) -> dict[str, Any]:
    """Return the fields of a settings class `kind` that a comparison has, too."""
    names = {field.name for field in fields(kind)} - {"config", "dry_run", "seed"}
    return {name: getattr(settings, name) for name in names}


def measure(settings: Compare, inputs: CompareInputs) -> Sizes:
    """Tokenise all texts, so that one that does not fit is found before any work.

    The model is dropped afterwards.

    Raises:
        InputError: An example does not fit the model or the task.
    """
    scored = inputs.training.scored
    with waiting("tokens of all examples"):
        s = settings
        llm = open_llm(s.model, None, s.seed, s, template=s.template)
        judged = prepare(
            inputs.test, inputs.bootstrap, llm, inputs.judging, settings.out
        )
        for stage in judged.plan.stages:
            stage.prepare()
        pools = (inputs.train, inputs.valid)
        train, valid = (Counts.of(tokenize_pool(pool, llm, scored)) for pool in pools)
        embedded = embedded_in(inputs.train.form, s.labels, scored)
        config = None
        if s.encoder:
            encoder, tokenizer = open_encoder(s.encoder).load()
            config = encoder.config
        lengths = []
        for pool in pools:
            if config:
                template = encoder_template(pool.form)
                texts = embedded_texts(pool, template, embedded)
                plain = (text.text for text in texts)
                tokens, _ = encoder_tokens(encoder, tokenizer, plain)
            else:
                texts = embedded_texts(pool, llm.template(pool.form), embedded)
                tokens = tokenize_texts(texts, pool, llm)
            lengths.append(tokens.lengths)
        decoder = llm.decoder().config
        frozen = inputs.training.lora.resolved(decoder).frozen_layers()
        sizes = Sizes(decoder, config, train, valid, np.concatenate(lengths), frozen)
    if settings.tokens is not None:
        loop = inputs.training.loop
        check_tokens(settings.tokens, train.tokens, loop.batch_size, loop.warmup_steps)
    return sizes


def _reading(s: Compare, train: Pool) -> dict[str, str | None]:
    """Name how texts are written, where it is not as Alpaca records are by default."""
    form = train.form
    embedded = {"embedded": embedded_in(form, s.labels)} if is_chat(form) else {}
    return {**TemplateChoice.read(s.template).identity, **embedded}


def _hashes(s: Compare, items: Path, test: Pool) -> dict[str, str | None]:
    """Hash what all trials read; training and validation examples are their own."""
    ranked = s.task == "seqrec" and items.exists()
    models = {name: getattr(s, name) for name in ("model", "adapter", "encoder")}
    return {
        "test": test.sha256,
        "items": hash_input(items) if ranked else None,
        **{name: path and hash_model(path) for name, path in models.items()},
    }
