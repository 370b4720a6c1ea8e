"""From the flags of `goracs select` to checked inputs and a configuration.

Rows come from arrays that are given, or from texts, whose embeddings and gradient norms
are stages that have yet to run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from goracs_jax.cost import check_inputs, check_lambda, check_row_scores
from goracs_jax.errors import InputError
from goracs_jax.files import digest
from goracs_jax.jobs.classes import ClassFlags, read_classes
from goracs_jax.jobs.score import text_stages
from goracs_jax.jobs.selected import GridPoint
from goracs_jax.runs.arrays import read_floats
from goracs_jax.runs.opened import Pool, open_models, read_pools
from goracs_jax.runs.outputs import keep_apart
from goracs_jax.runs.stages import Arrays, Stage
from goracs_jax.selection.classes import Classes
from goracs_jax.selection.method import (
    Method,
    find_method,
    known_methods,
    needs_of,
)
from goracs_jax.selection.problem import check_memory
from goracs_jax.selection.sweep import ordered
from goracs_jax.settings import Select
from goracs_jax.spaces import Space, transform_of

DEFAULT_LAMBDA = 0.1


class SelectInputs(NamedTuple):
    """What is selected from: x, y and, where needed, norms g and errors e."""

    stages: dict[str, Stage]  # of those of x, y and g that are to be computed
    arrays: Arrays  # those of x, y, g and e that were given
    identity: dict[str, Any]  # hashes of all that x, y, g, e and the classes depend on
    n_train: int
    n_valid: int
    pool: Pool | None  # the training examples, where there are texts
    classes: Classes | None  # where the selection is label-aware

    @classmethod
    def of(
        cls,
        arrays: Arrays,
        sha256: Mapping[str, str],
        pool: Pool | None,
        classes: Classes | None,
    ) -> "SelectInputs":
        """Make the inputs from arrays that are given.

        Args:
            arrays: x, y and, where needed, g and e.
            sha256: The hash of the file of each.
            pool: The training examples, if they are known.
            classes: The classes of both sets, if the selection is label-aware.
        """
        identity = {**sha256, **_identity_of(classes)}
        shape = len(arrays["x"]), len(arrays["y"])
        return cls({}, arrays, identity, *shape, pool, classes)


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """What a search depends on, apart from its inputs."""

    method: Method
    budgets: tuple[int, ...]
    lambdas: tuple[float, ...]
    solver: str = "auto"
    seed: int = 0
    space: Space = field(default_factory=Space)

    @classmethod
    def of(cls, settings: Select, lambdas: Sequence[float]) -> "SelectConfig":
        """Take what a search depends on from the flags.

        Args:
            settings: The flags.
            lambdas: Their lambdas, or the default.
        """
        return cls(
            method=find_method(settings.method),
            budgets=settings.budget,
            lambdas=tuple(lambdas),
            solver=settings.solver,
            seed=settings.seed,
            space=Space(settings.transform, settings.metric),
        )

    @property
    def points(self) -> list[GridPoint]:
        """Every budget with every lambda, in the order that shares most work."""
        return [GridPoint(*point) for point in ordered(self.budgets, self.lambdas)]


def read_inputs(settings: Select) -> tuple[SelectInputs, SelectConfig]:
    """Read and check what the flags of `goracs select` ask for; nothing is computed.

    Raises:
        InputError: The first flag or file that is wrong.
    """
    s = settings
    if s.method not in (known := known_methods()):
        raise InputError(
            f"--method must be one of {', '.join(known)}, got {s.method!r}."
        )
    method = find_method(s.method)
    keep_apart(s.out, s.model, s.encoder, s.adapter)
    by_arrays = s.train_embeddings or s.valid_embeddings
    read = _from_arrays if by_arrays else _from_texts
    transform_of(s.transform)  # a name that is wrong is found before files are read
    inputs, lambdas = read(s, method)
    check_memory(max(s.budget), inputs.n_valid)
    config = SelectConfig.of(s, lambdas)
    config.space.check(inputs.n_valid)
    return inputs, config


def _from_arrays(s: Select, method: Method) -> tuple[SelectInputs, tuple[float, ...]]:
    """Read embeddings, norms and errors from .npy files, and texts beside them."""
    if s.train_embeddings is None or s.valid_embeddings is None:
        raise InputError("give --train-embeddings and --valid-embeddings together.")
    for flag in ("valid", "model", "encoder", "adapter"):
        for_classes = flag == "valid" and s.by_label
        if getattr(s, flag) is not None and not for_classes:
            raise InputError(f"--{flag} is for texts: leave it out beside embeddings.")
    _check_errors_flag(s, method)
    if "grad_norms" in method.needs and not s.grad_norms:
        raise InputError(f"--method {s.method} ranks by norms: give --grad-norms.")
    if "prediction_errors" in method.needs and not s.errors:
        raise InputError(f"--method {s.method} ranks by errors: give --errors.")
    arrays, hashes = read_floats(
        {
            "x": (s.train_embeddings, "training embeddings"),
            "y": (s.valid_embeddings, "validation embeddings"),
            "g": (s.grad_norms, "norms"),
            "e": (s.errors, "errors"),
        }
    )
    lambdas = _lambdas(s, DEFAULT_LAMBDA if s.grad_norms else 0.0)
    check_inputs(arrays["x"], arrays["y"], arrays.get("g"), max(lambdas))
    shape = len(arrays["x"]), len(arrays["y"])
    _check_errors(s, arrays, shape[0])
    pools = _pools_beside(s, shape)
    classes = read_classes(_class_flags(s), shape, pools, s.budget)
    pool = pools[0] if s.train else None
    return SelectInputs.of(arrays, hashes, pool, classes), lambdas


def _from_texts(s: Select, method: Method) -> tuple[SelectInputs, tuple[float, ...]]:
    """Make the stages that embed two files of examples and take gradient norms."""
    if s.train is None or s.valid is None:
        raise InputError(
            "nothing to select from: give --train and --valid, or --train-embeddings "
            "and --valid-embeddings."
        )
    _check_errors_flag(s, method)
    lambdas = _lambdas(s, DEFAULT_LAMBDA if method.weighed else 0.0)
    train, valid = read_pools(s.train, s.valid, duplicates=s.duplicates)
    # What can be known is checked before a large model is hashed.
    shape = len(train.examples), len(valid.examples)
    classes = read_classes(_class_flags(s), shape, (train, valid), s.budget)
    arrays, hashes = read_floats({"e": (s.errors, "errors")})
    _check_errors(s, arrays, shape[0])
    needs = needs_of(method, max(lambdas))
    # A lambda that is given is honoured: it weighs in what is reported of any method.
    by_norms = "grad_norms" in needs or max(lambdas) > 0
    by_errors = "prediction_errors" in needs and not s.errors
    if not s.model and (by_norms or by_errors or not s.encoder):
        ranking = " or ".join(m.name for m in known_methods().values() if _ranks(m))
        raise InputError(
            "--model is missing: it gives gradient norms (not needed with --lambda 0, "
            f"unless --method is {ranking}) and, without --encoder, embeddings."
        )
    llm, embedder = open_models(s.model, s.encoder, s.adapter, s.seed, s)
    ranked = llm if by_norms or by_errors else None
    stages = text_stages(train, valid, embedder, s.labels, norms_of=ranked)
    identity = {symbol: stage.basis for symbol, stage in stages.items()}
    identity |= hashes | _identity_of(classes)
    return SelectInputs(stages, arrays, identity, *shape, train, classes), lambdas


def _pools_beside(s: Select, shape: tuple[int, int]) -> list[Pool]:
    """Read the examples that belong to given embeddings, where they are given, too."""
    sides = zip(
        (s.train, s.valid), (s.train_embeddings, s.valid_embeddings), shape, strict=True
    )
    beside = [(texts, *rows) for texts, *rows in sides if texts]
    pools = read_pools(*(texts for texts, _, _ in beside))
    for pool, (texts, embeddings, rows) in zip(pools, beside, strict=True):
        if len(pool.examples) != rows:
            raise InputError(
                f"{texts} has {len(pool.examples)} examples, {embeddings} {rows} rows: "
                "they must match."
            )
    return pools


def _identity_of(classes: Classes | None) -> dict[str, str]:
    """Return what classes add to the identity of a stage; nothing without classes."""
    if not classes:
        return {}
    names, *sides = classes
    return {"labels": digest([names, *(side.tolist() for side in sides)])}


def _lambdas(s: Select, default: float) -> tuple[float, ...]:
    lambdas = (default,) if s.lambda_ is None else s.lambda_
    for lambda_ in lambdas:
        check_lambda(lambda_)
    return lambdas


def _ranks(method: Method) -> bool:
    """Tell whether a method needs scores of a language model whatever lambda is."""
    return not {"grad_norms", "prediction_errors"}.isdisjoint(method.needs)


def _class_flags(s: Select) -> ClassFlags:
    return ClassFlags(s.train_labels, s.valid_labels, s.by_label)


def _check_errors_flag(s: Select, method: Method) -> None:
    if s.errors and "prediction_errors" not in method.needs:
        known = known_methods().values()
        readers = [m.name for m in known if "prediction_errors" in m.needs]
        raise InputError(
            f"--errors are read by --method {' or '.join(readers)} and no other: leave "
            "them out."
        )


def _check_errors(s: Select, arrays: Arrays, n_train: int) -> None:
    if "e" in arrays:
        check_row_scores(arrays["e"], n_train, f"prediction errors of {s.errors}")
