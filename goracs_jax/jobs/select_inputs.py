"""From the flags of `goracs select` to checked inputs and a configuration.

Rows come from arrays that are given, or from texts, whose embeddings, gradients and
rewards are stages that have yet to run.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from goracs_jax.cost import check_inputs, check_row_scores
from goracs_jax.data.coreset_files import check_formats
from goracs_jax.data.skipped import Skipped
from goracs_jax.errors import InputError
from goracs_jax.files import digest
from goracs_jax.jobs.classes import ClassFlags, check_budgets, read_classes
from goracs_jax.jobs.leakage import Leaked, equal_rows, rows_to_keep
from goracs_jax.jobs.rows import check_rows
from goracs_jax.jobs.select_config import GRADIENT, SelectConfig
from goracs_jax.jobs.text_stages import stages_of
from goracs_jax.jobs.usable import check_beside, usable_rows
from goracs_jax.jobs.wishes import Wished, read_wishes
from goracs_jax.runs.arrays import read_floats
from goracs_jax.runs.kept import Kept
from goracs_jax.runs.opened import Pool
from goracs_jax.runs.pools import left_out, limit_of, read_pools
from goracs_jax.runs.reading import scored_in
from goracs_jax.runs.stages import Arrays, Stage
from goracs_jax.selection.auto_budget import check_halves
from goracs_jax.selection.classes import Classes
from goracs_jax.selection.method import known_methods
from goracs_jax.selection.problem import check_memory
from goracs_jax.settings import Select


class SelectInputs(NamedTuple):
    """What is selected from: x, y and, where needed, norms g, rewards r, errors e.

    A second source of rows has the symbols x2 and y2, and so on: see
    `SelectConfig.symbols`.
    """

    stages: dict[str, Stage]  # of those arrays that are to be computed, by symbol
    arrays: Arrays  # those that were given, by symbol
    identity: dict[str, Any]  # hashes of all that the arrays and the classes depend on
    n_train: int
    n_valid: int
    pool: Pool | None  # the training examples, where there are texts
    classes: Classes | None  # where the selection is label-aware
    kept: Kept | None = None  # the training rows of the files that these are
    leaked: Leaked | None = None  # how many of them copy a validation example
    skipped: Sequence[Skipped] = ()  # records and rows that were left out
    kept_valid: Kept | None = None  # the validation rows of the file that are used
    wished: Wished | None = None  # what the chosen rows must meet

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
            arrays: x, y and, where needed, g, r and e.
            sha256: The hash of the file of each.
            pool: The training examples, if they are known.
            classes: The classes of both sets, if the selection is label-aware.
        """
        identity = {**sha256, **_identity_of(classes)}
        shape = len(arrays["x"]), len(arrays["y"])
        return cls({}, arrays, identity, *shape, pool, classes)


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
    config = SelectConfig.of(s)
    config.check(n_valid=2**62)  # names that are wrong are found before files are read
    _check_flags(s, config)
    if not config.budgets and (s.by_label or s.train_labels):
        raise InputError("--budget auto is not for classes: give a number.")
    by_arrays = s.train_embeddings or s.valid_embeddings
    inputs = (_from_arrays if by_arrays else _from_texts)(s, config)
    if s.coreset_formats:
        if inputs.pool is None:
            raise InputError(
                "--coreset-formats are of texts: give --train beside the embeddings."
            )
        check_formats(s.coreset_formats, [e.record for e in inputs.pool.examples])
    if not config.budgets:
        check_halves(inputs.n_valid)
    check_memory(max(config.budgets, default=1), inputs.n_valid)
    config.check(inputs.n_valid)
    return _with_wishes(s, inputs, config), config


def _with_wishes(s: Select, inputs: SelectInputs, config: SelectConfig) -> SelectInputs:
    """Add what the chosen rows must meet."""
    assert inputs.kept
    assert inputs.kept_valid
    wished = read_wishes(s, inputs.pool, (inputs.kept, inputs.kept_valid))
    by_class = bool(inputs.classes)
    wished.check(config.method, inputs.n_train, config.budgets, by_class)
    identity = {**inputs.identity, **wished.identity}
    return inputs._replace(wished=wished, identity=identity)


def _from_arrays(s: Select, config: SelectConfig) -> SelectInputs:
    """Read embeddings, norms and errors from .npy files, and texts beside them."""
    if s.train_embeddings is None or s.valid_embeddings is None:
        raise InputError("give --train-embeddings and --valid-embeddings together.")
    of_models = ("model", "encoder", "adapter", "space", "adapter_from_pool")
    for flag in ("valid", *of_models, "max_length", "too_long"):
        for_classes = flag == "valid" and s.by_label
        if getattr(s, flag) is not None and not for_classes:
            name = flag.replace("_", "-")
            raise InputError(f"--{name} is for texts: leave it out beside embeddings.")
    if config.by_loss_drop:
        raise InputError("--reward loss-drop is for texts: give --rewards instead.")
    if "grad_norms" in config.method.needs and not s.grad_norms:
        raise InputError(f"--method {s.method} ranks by norms: give --grad-norms.")
    if "prediction_errors" in config.method.needs and not s.errors:
        raise InputError(f"--method {s.method} ranks by errors: give --errors.")
    arrays, hashes = read_floats(
        {
            "x": (s.train_embeddings, "training embeddings"),
            "y": (s.valid_embeddings, "validation embeddings"),
            "g": (s.grad_norms, "norms"),
            "r": (s.rewards, "rewards"),
            "e": (s.errors, "errors"),
        }
    )
    pools = _pools_beside(s, arrays)
    used, bad = Kept.all(len(arrays["x"])), Skipped()
    used_valid = Kept.all(len(arrays["y"]))
    if s.bad_rows == "skip":
        mine = [array for symbol, array in arrays.items() if symbol != "y"]
        used = usable_rows(mine, pools.get("x"), s.train_embeddings, bad)
        theirs = [arrays["y"]], pools.get("y"), s.valid_embeddings
        used_valid = usable_rows(*theirs, bad)
        both = {"x": used, "y": used_valid}
        pools = {symbol: _of_rows(p, both[symbol]) for symbol, p in pools.items()}
    arrays = {k: (used_valid if k == "y" else used).take(v) for k, v in arrays.items()}
    weighed = 0.0 if config.reward_source else max(config.lambdas)
    norms = None if s.rewards else arrays.get("g")
    check_inputs(arrays["x"], arrays["y"], norms, weighed, arrays.get("r"))
    _check_errors(s, arrays, len(used.rows))
    classes = read_classes(
        _class_flags(s), (used, used_valid), [*pools.values()], config.budgets
    )
    config.reward.check_labels(classes is not None)
    kept, leaked = equal_rows(arrays["x"], arrays["y"], s)
    arrays |= {k: kept.take(v) for k, v in arrays.items() if k != "y"}
    classes = _of_kept(classes, kept, config.budgets)
    pool = pools.get("x")
    found = SelectInputs.of(arrays, hashes, pool and pool.only(kept), classes)
    kept = used.then(kept)
    identity = found.identity | kept.identity
    if not used_valid.is_all:
        identity["valid"] = used_valid.identity
    skipped = [bad, *left_out(*pools.values())]
    rest = {"identity": identity, "leaked": leaked, "skipped": skipped}
    return found._replace(kept=kept, kept_valid=used_valid, **rest)


def _of_rows(pool: Pool, used: Kept) -> Pool:
    """Take the examples of a pool that are among some rows of its file."""
    return pool.only(Kept.where(np.isin(pool.of_file.rows, used.rows)))


def _from_texts(s: Select, config: SelectConfig) -> SelectInputs:
    """Make the stages that embed two files of examples and score the first."""
    if s.train is None or s.valid is None:
        raise InputError(
            "nothing to select from: give --train and --valid, or --train-embeddings "
            "and --valid-embeddings."
        )
    for flag in ("grad_norms", "rewards"):
        if getattr(s, flag):
            name = flag.replace("_", "-")
            raise InputError(
                f"--{name} is for embeddings that are given: leave it out beside texts."
            )
    scored = partial(scored_in, labels=s.labels)
    limit = limit_of(s, s.model, s.encoder, scored=scored)
    given = {"limit": limit, "flags": s, "duplicates": s.duplicates}
    train, valid = read_pools(s.train, s.valid, **given)
    # What can be known is checked before a large model is hashed.
    n_valid = len(valid.examples)
    config.check(n_valid)
    sides = (train.of_file, valid.of_file)
    classes = read_classes(_class_flags(s), sides, (train, valid), config.budgets)
    config.reward.check_labels(classes is not None)
    arrays, hashes = read_floats({"e": (s.errors, "errors")})
    if "e" in arrays and len(arrays["e"]) == train.of_file.of:
        arrays["e"] = train.of_file.take(arrays["e"])
    _check_errors(s, arrays, len(train.examples))
    kept, leaked = rows_to_keep(train, {"validation": valid}, s)
    skipped = left_out(train, valid)
    train, classes = train.only(kept), _of_kept(classes, kept, config.budgets)
    arrays = {symbol: kept.take(array) for symbol, array in arrays.items()}
    kept = train.of_file
    missing_errors = "prediction_errors" in config.method.needs and not s.errors
    norms = config.by_norms or missing_errors
    made = stages_of(s, config, train, valid, norms=norms)
    identity = {symbol: stage.basis for symbol, stage in made.stages.items()}
    identity |= hashes | made.sha256 | _identity_of(classes) | kept.identity
    arrays |= made.arrays
    shape = len(train.examples), n_valid
    rest = (classes, kept, leaked, skipped, valid.of_file)
    return SelectInputs(made.stages, arrays, identity, *shape, train, *rest)


def _of_kept(
    classes: Classes | None, kept: Kept, budgets: Sequence[int]
) -> Classes | None:
    """Take the classes of the rows that are kept, and check every budget again."""
    if classes:
        classes = classes._replace(train=kept.take(classes.train))
    check_budgets(budgets, len(kept.rows), classes)
    return classes


def _pools_beside(s: Select, arrays: Arrays) -> dict[str, Pool]:
    """Read the examples that belong to given embeddings, where they are given, too."""
    sides = {"x": (s.train, s.train_embeddings), "y": (s.valid, s.valid_embeddings)}
    paths = {symbol: texts for symbol, (texts, _) in sides.items() if texts}
    # Texts are not tokenised here, so that none is too long.
    read = read_pools(*paths.values(), limit=None, flags=s)
    pools = dict(zip(paths, read, strict=True))
    check_beside({str(sides[k][1]): (p, len(arrays[k])) for k, p in pools.items()})
    return pools


def _identity_of(classes: Classes | None) -> dict[str, str]:
    """Return what classes add to the identity of a stage; nothing without classes."""
    if not classes:
        return {}
    names, *sides = classes
    return {"labels": digest([names, *(side.tolist() for side in sides)])}


def _class_flags(s: Select) -> ClassFlags:
    return ClassFlags(s.train_labels, s.valid_labels, s.by_label)


def _check_flags(s: Select, config: SelectConfig) -> None:
    """Refuse flags that are not read, whatever the files contain."""
    if s.errors and "prediction_errors" not in config.method.needs:
        known = known_methods().values()
        readers = [m.name for m in known if "prediction_errors" in m.needs]
        raise InputError(
            f"--errors are read by --method {' or '.join(readers)} and no other: leave "
            "them out."
        )
    if s.rewards and s.reward:
        raise InputError("give --rewards or --reward, not both.")
    if s.encoder and s.train_embeddings is None and "text" not in config.symbols:
        raise InputError(
            f"--encoder is for the space text, and --space {s.space} does not read it: "
            "leave it out."
        )
    check_rows(s, by_gradients=GRADIENT in config.symbols)


def _check_errors(s: Select, arrays: Arrays, n_train: int) -> None:
    if "e" in arrays:
        check_row_scores(arrays["e"], n_train, f"prediction errors of {s.errors}")
