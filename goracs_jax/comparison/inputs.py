"""What a comparison reads: its files and flags, checked before any work."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from goracs_jax.comparison.charges import Sizes
from goracs_jax.comparison.design import BY_LABEL, FULL, Trial, base_name, design
from goracs_jax.cost import check_lambda
from goracs_jax.errors import InputError
from goracs_jax.evaluate.metrics import Bootstrap
from goracs_jax.files import hash_files
from goracs_jax.jobs.classes import check_budgets, classes_of
from goracs_jax.jobs.evaluate import EvaluateConfig, bootstrap_of, prepare
from goracs_jax.jobs.finetune import TrainConfig
from goracs_jax.jobs.score import embedded_texts
from goracs_jax.llm.embeddings import encoder_tokens
from goracs_jax.llm.flops import Counts
from goracs_jax.runs.opened import (
    Pool,
    hash_model,
    open_encoder,
    open_llm,
    read_pools,
    tokenize_pool,
)
from goracs_jax.runs.outputs import keep_apart
from goracs_jax.runs.say import waiting
from goracs_jax.selection.classes import Classes
from goracs_jax.selection.method import known_methods
from goracs_jax.selection.problem import check_memory
from goracs_jax.settings import Compare, Evaluate, Judging, Machine

DEFAULT_LAMBDAS = (0.1,)


class CompareInputs(NamedTuple):
    """The files of a comparison, read and checked, and the trials that it asks for."""

    train: Pool
    valid: Pool
    test: Pool
    bootstrap: Bootstrap  # its units are the users of the test examples
    classes: Classes | None  # where a method is label-aware
    hashes: dict[str, str | None]  # of all that is read, models too
    training: TrainConfig  # of the first seed
    judging: EvaluateConfig
    trials: list[Trial]


def read_inputs(settings: Compare) -> CompareInputs:
    """Read and check what the flags of `goracs compare` ask for; nothing is computed.

    Raises:
        InputError: The first flag or file that is wrong.
    """
    s = settings
    _check_flags(s)
    training = TrainConfig.of(s, s.seed)
    judging = EvaluateConfig.of(judged_settings(s, s.out / "metrics.json"))
    train, valid, test = read_pools(s.train, s.valid, s.test, duplicates=s.duplicates)
    n_train = len(train.examples)
    check_budgets(s.budgets, n_train)
    for size in [*([n_train] if FULL in s.methods else []), *s.budgets]:
        training.check_size(size)
    if set(s.methods) != {FULL}:
        check_memory(max(s.budgets), len(valid.examples))
    classes = None
    if any(method.endswith(BY_LABEL) for method in s.methods):
        classes = classes_of(train, valid)
        check_budgets(s.budgets, n_train, classes)
    bootstrap = bootstrap_of(test, judging)
    trials = design(
        s.methods,
        s.budgets,
        DEFAULT_LAMBDAS if s.lambdas is None else s.lambdas,
        range(s.seed, s.seed + s.seeds),
        full_seeds=s.full_seeds,
        n_train=n_train,
    )
    hashes = _hashes(s, judging.items, (train, valid, test))
    pools = (train, valid, test)
    return CompareInputs(*pools, bootstrap, classes, hashes, training, judging, trials)


def judged_settings(
    settings: Compare, out: Path, adapter: Path | None = None, seed: int = 0
) -> Evaluate:
    """Make the flags that evaluate a trial's adapter, or the model as it is."""
    return Evaluate(
        **shared_settings(settings, Judging),
        **shared_settings(settings, Machine),
        task=settings.task,
        model=settings.model,
        out=out,
        adapter=adapter,
        seed=seed,
    )


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
        llm = open_llm(settings.model, None, settings.seed, settings)
        judged = prepare(
            inputs.test, inputs.bootstrap, llm, inputs.judging, settings.out
        )
        for stage in judged.plan.stages:
            stage.prepare()
        pools = (inputs.train, inputs.valid)
        train, valid = (
            Counts.of(tokenize_pool(pool.prompts, pool.places, llm, scored))
            for pool in pools
        )
        texts = [text for pool in pools for text in embedded_texts(pool, scored)]
        if settings.encoder:
            encoder, tokenizer = open_encoder(settings.encoder).load()
            joined = [text.prompt + text.answer for text in texts]
            tokens, _ = encoder_tokens(encoder, tokenizer, joined)
            config = encoder.config
        else:
            places = [place for pool in pools for place in pool.places]
            tokens, config = tokenize_pool(texts, places, llm), None
        return Sizes(llm.decoder().config, config, train, valid, tokens.lengths)


def _check_flags(s: Compare) -> None:
    """Refuse flags that are wrong whatever the files contain."""
    known = known_methods()
    for method in s.methods:
        if base_name(method) not in known and method != FULL:
            raise InputError(
                f"--methods must be among {', '.join([*known, FULL])}, all but "
                f"{FULL} with or without {BY_LABEL}, got {method!r}."
            )
    weighed = [name for name, method in known.items() if method.weighed]
    if s.lambdas and not set(map(base_name, s.methods)) & set(weighed):
        raise InputError(
            f"--lambdas are for {', '.join(weighed)}, and none of them is in --methods:"
            " leave them out."
        )
    for lambda_ in s.lambdas or ():
        check_lambda(lambda_)
    if s.seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {s.seeds}.")
    if s.seeds > (most := 2**32 - s.seed):
        raise InputError(
            f"--seeds must be at most {most} with --seed {s.seed}, got {s.seeds}: "
            f"seeds end at {2**32 - 1}."
        )
    if not 1 <= s.full_seeds <= s.seeds:
        raise InputError(
            f"--full-seeds must be in [1, {s.seeds}], the number of seeds, got "
            f"{s.full_seeds}."
        )
    if s.out.exists() and not s.out.is_dir():
        raise InputError(f"--out {s.out} is a file: give a folder.")
    keep_apart(s.out, s.model, s.encoder, s.adapter)


def _hashes(s: Compare, items: Path, pools: Sequence[Pool]) -> dict[str, str | None]:
    names = ("train", "valid", "test")
    ranked = s.task == "seqrec" and items.exists()
    models = {name: getattr(s, name) for name in ("model", "adapter", "encoder")}
    return {
        **{name: pool.sha256 for name, pool in zip(names, pools, strict=True)},
        "items": hash_files(items) if ranked else None,
        **{name: path and hash_model(path) for name, path in models.items()},
    }
