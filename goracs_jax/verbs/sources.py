"""What `goracs select` selects from: stages that make x, y, g, or given arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from goracs_jax.cost import check_inputs, check_lambda, check_row_scores
from goracs_jax.data.examples import check_duplicates
from goracs_jax.errors import InputError
from goracs_jax.files import hash_files
from goracs_jax.runs.opened import (
    Pool,
    embed_stage,
    load_array,
    norms_stage,
    open_encoder,
    open_llm,
    read_pool,
)
from goracs_jax.runs.stages import Arrays, Stage
from goracs_jax.selection.classes import Classes
from goracs_jax.settings import Select
from goracs_jax.verbs.labels import identity_of, read_labels

DEFAULT_LAMBDA = 0.1


class Source(NamedTuple):
    """Embeddings x and y and, where needed, norms g and errors e, by their symbols."""

    stages: dict[str, Stage]  # of x, y, g that are to be computed
    arrays: Arrays  # those that were given
    identity: Mapping[str, Any]  # hashes of all that x, y, g and e depend on
    n_train: int
    n_valid: int
    lambdas: tuple[float, ...]
    pool: Pool | None  # the training examples, where there are texts
    labels: Classes | None  # where the selection is label-aware


def from_arrays(settings: Select) -> Source:
    """Embeddings and norms from .npy files, checked."""
    if settings.train_embeddings is None or settings.valid_embeddings is None:
        raise InputError("give --train-embeddings and --valid-embeddings together.")
    for flag in ("valid", "model", "encoder", "adapter"):
        for_labels = flag == "valid" and settings.by_label
        if getattr(settings, flag) is not None and not for_labels:
            raise InputError(f"--{flag} is for texts: leave it out beside embeddings.")
    paths = {"x": settings.train_embeddings, "y": settings.valid_embeddings}
    if settings.grad_norms:
        paths["g"] = settings.grad_norms
    elif settings.method == "grad-norm":
        raise InputError("--method grad-norm ranks by norms: give --grad-norms.")
    what = {"x": "training embeddings", "y": "validation embeddings", "g": "norms"}
    arrays = {symbol: load_array(path, what[symbol]) for symbol, path in paths.items()}
    default = DEFAULT_LAMBDA if settings.grad_norms else 0.0
    lambdas = (default,) if settings.lambda_ is None else settings.lambda_
    for lambda_ in lambdas:
        check_lambda(lambda_)
    check_inputs(arrays["x"], arrays["y"], arrays.get("g"), max(lambdas))
    n_train, n_valid = len(arrays["x"]), len(arrays["y"])
    if settings.method == "error" and not settings.errors:
        raise InputError("--method error ranks by errors: give --errors.")
    errors, errors_identity = _errors(settings, n_train)
    texts = {"x": settings.train, "y": settings.valid}
    pools = {
        symbol: _read_beside(path, paths[symbol], len(arrays[symbol]))
        for symbol, path in texts.items()
        if path
    }
    labels = read_labels(settings, (n_train, n_valid), *pools.values())
    identity = {symbol: hash_files(path) for symbol, path in paths.items()}
    identity |= errors_identity | identity_of(labels)
    return Source(
        {},
        arrays | errors,
        identity,
        n_train,
        n_valid,
        lambdas,
        pools.get("x"),
        labels,
    )


def from_texts(settings: Select) -> Source:
    """Stages that embed two files of examples and take gradient norms of the first."""
    if settings.train is None or settings.valid is None:
        raise InputError(
            "nothing to select from: give --train and --valid, or --train-embeddings "
            "and --valid-embeddings."
        )
    lambdas = (DEFAULT_LAMBDA,) if settings.lambda_ is None else settings.lambda_
    for lambda_ in lambdas:
        check_lambda(lambda_)
    train, valid = read_pool(settings.train), read_pool(settings.valid)
    if settings.duplicates == "refuse":
        check_duplicates(train.examples)
    # What can be known is checked before a large model is hashed.
    n_train, n_valid = len(train.examples), len(valid.examples)
    labels = read_labels(settings, (n_train, n_valid), train, valid)
    errors, errors_identity = _errors(settings, n_train)
    ranks = settings.method == "error" and not errors
    needs_norms = max(lambdas) > 0 or settings.method == "grad-norm" or ranks
    stages = {}
    if settings.model:
        llm = open_llm(settings.model, settings.adapter, settings.seed, settings.dtype)
        embedder = open_encoder(settings.encoder) if settings.encoder else llm
        if needs_norms:
            stages["g"] = norms_stage(train, llm, "last_v_lora_b", settings.labels)
    elif settings.encoder and not needs_norms:
        embedder = open_encoder(settings.encoder)
    else:
        raise InputError(
            "--model is missing: it gives gradient norms (not needed with --lambda 0, "
            "but for --method grad-norm or error) and, without --encoder, embeddings."
        )
    stages |= {
        "x": embed_stage("training embeddings", train, embedder, settings.labels),
        "y": embed_stage("validation embeddings", valid, embedder, settings.labels),
    }
    identity = {symbol: stage.inputs for symbol, stage in stages.items()}
    identity |= errors_identity | identity_of(labels)
    return Source(stages, errors, identity, n_train, n_valid, lambdas, train, labels)


def _read_beside(texts: Path, embeddings: Path, rows: int) -> Pool:
    """The examples that embeddings were given of."""
    pool = read_pool(texts)
    if len(pool.examples) != rows:
        raise InputError(
            f"{texts} has {len(pool.examples)} examples, {embeddings} {rows} rows: "
            "they must match."
        )
    return pool


def _errors(settings: Select, n_train: int) -> tuple[Arrays, dict[str, str]]:
    """The prediction errors that were given, checked, and their hash."""
    path = settings.errors
    if path is None:
        return {}, {}
    if settings.method != "error":
        raise InputError(
            "--errors are read by --method error and no other: leave them out."
        )
    errors = load_array(path, "errors")
    check_row_scores(errors, n_train, f"prediction errors of {path}")
    return {"e": errors}, {"e": hash_files(path)}
