"""`goracs select`: files in; indices, coreset, scores, manifest and picture out."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from goracs_jax.cost import Cost, make_cost, nearest_distances
from goracs_jax.data.examples import check_duplicates, write_jsonl
from goracs_jax.errors import InputError
from goracs_jax.report import Row, draw, table
from goracs_jax.selection import SELECTORS
from goracs_jax.selection import select as select_rows
from goracs_jax.selection.problem import check_budget, mean_distance
from goracs_jax.settings import Select
from goracs_jax.stages import (
    Arrays,
    Result,
    Stage,
    atomic,
    hash_files,
    prepare_folder,
    run_stage,
)
from goracs_jax.verbs.inputs import (
    Pool,
    embed_stage,
    load_array,
    norms_stage,
    open_encoder,
    open_llm,
    read_pool,
)
from goracs_jax.verbs.say import say, waiting

DEFAULT_LAMBDA = 0.1
RECORDED = ("jax", "jaxlib", "flax", "ott-jax", "POT", "transformers", "numpy", "scipy")


class Inputs(NamedTuple):
    """What is to be selected from: the stages that make it, or arrays as given."""

    stages: dict[str, Stage]  # by symbol: x, y and, for lambda > 0, g
    arrays: Arrays  # the same, where given
    sizes: tuple[int, int]  # N, M
    identity: dict[str, Any]  # hashes of all that the arrays depend on
    lambda_: float
    pool: Pool | None


def select(settings: Select) -> None:
    """Run `goracs select`."""
    if settings.method not in SELECTORS:
        raise InputError(
            f"--method must be one of {', '.join(SELECTORS)}, got {settings.method!r}."
        )
    inputs = (
        _from_arrays(settings) if settings.train_embeddings else _from_texts(settings)
    )
    n_train, n_valid = inputs.sizes
    check_budget(n_train, settings.budget)
    stage = _selection_stage(settings, inputs)
    if settings.dry_run:
        _say_plan(settings, inputs, stage)
        return
    # Embeddings of up to 4,096 numbers, stored once as parts and once whole.
    prepare_folder(
        settings.out, 2 * 4 * 4096 * (n_train + n_valid) if inputs.stages else 0
    )
    stages = inputs.stages.values()
    for pending in (s for s in stages if not s.is_done(settings.out)):
        pending.prepare()
    made = {name: run_stage(settings.out, s) for name, s in inputs.stages.items()}
    arrays = inputs.arrays | {
        name: next(iter(result.arrays.values())) for name, result in made.items()
    }
    cost = make_cost(arrays["x"], arrays["y"], arrays.get("g"), inputs.lambda_)
    stage = stage._replace(compute=lambda _: _compute(settings, cost))
    with waiting("selection"):
        chosen = run_stage(settings.out, stage)
    _write(settings, inputs, arrays, cost, made, chosen)


def _from_arrays(settings: Select) -> Inputs:
    if settings.valid_embeddings is None or settings.train_embeddings is None:
        raise InputError("--train-embeddings needs --valid-embeddings beside it.")
    paths = {"x": settings.train_embeddings, "y": settings.valid_embeddings}
    names = {
        "x": "training embeddings",
        "y": "validation embeddings",
        "g": "gradient norms",
    }
    if settings.grad_norms:
        paths["g"] = settings.grad_norms
    arrays = {name: load_array(path, names[name]) for name, path in paths.items()}
    default = DEFAULT_LAMBDA if settings.grad_norms else 0.0
    lambda_ = default if settings.lambda_ is None else settings.lambda_
    pool = read_pool(settings.train) if settings.train else None
    if pool and len(pool.examples) != len(arrays["x"]):
        raise InputError(
            f"{settings.train} has {len(pool.examples)} examples, "
            f"{settings.train_embeddings} {len(arrays['x'])} rows: they must match."
        )
    # Made here for its checks alone, before anything is written.
    make_cost(arrays["x"], arrays["y"], arrays.get("g"), lambda_)
    identity = {name: hash_files(path) for name, path in paths.items()}
    sizes = (len(arrays["x"]), len(arrays["y"]))
    return Inputs({}, arrays, sizes, identity, lambda_, pool)


def _from_texts(settings: Select) -> Inputs:
    if settings.train is None or settings.valid is None:
        raise InputError(
            "nothing to select from: give --train and --valid, or --train-embeddings "
            "and --valid-embeddings."
        )
    lambda_ = DEFAULT_LAMBDA if settings.lambda_ is None else settings.lambda_
    if settings.model is None and (lambda_ > 0 or settings.encoder is None):
        raise InputError(
            "--model is missing: it gives gradient norms (not needed with --lambda 0) "
            "and, without --encoder, embeddings."
        )
    train, valid = read_pool(settings.train), read_pool(settings.valid)
    if settings.duplicates == "refuse":
        check_duplicates(train.examples)
    # Hashing a large model takes a while: what can be known is checked before.
    check_budget(len(train.examples), settings.budget)
    llm = (
        open_llm(settings.model, settings.adapter, settings.seed)
        if settings.model
        else None
    )
    source = open_encoder(settings.encoder) if settings.encoder else llm
    stages = {
        "x": embed_stage("training embeddings", train, source, settings.labels),
        "y": embed_stage("validation embeddings", valid, source, settings.labels),
    }
    if lambda_ > 0:
        stages["g"] = norms_stage(train, llm, "last_v_lora_b", settings.labels)
    identity = {name: stage.inputs for name, stage in stages.items()}
    sizes = (len(train.examples), len(valid.examples))
    return Inputs(stages, {}, sizes, identity, lambda_, train)


def _selection_stage(settings: Select, inputs: Inputs) -> Stage:
    choice = {
        "budget": settings.budget,
        "lambda": inputs.lambda_,
        "method": settings.method,
        "solver": settings.solver,
        "seed": settings.seed,
    }
    return Stage("selection", inputs.identity | choice, lambda _: {})


def _compute(settings: Select, cost: Cost) -> Arrays:
    key_method, key_random = jax.random.split(jax.random.key(settings.seed))
    budget = settings.budget
    chosen = select_rows(
        cost, budget, key=key_method, method=settings.method, solver=settings.solver
    )
    random = select_rows(cost, budget, key=key_random, method="random")
    return {
        "indices": chosen.indices,
        "objective": np.float64(chosen.objective),
        "lower_bound": np.float64(chosen.lower_bound),
        "converged": np.bool_(chosen.converged),
        "trace": np.array(chosen.trace, np.float64),
        "random_indices": random.indices,
        "random_objective": np.float64(random.objective),
        "random_seconds": np.float64(random.trace[-1].seconds),
        "nearest_distance": np.asarray(nearest_distances(cost), np.float32),
    }


def _write(
    settings: Select,
    inputs: Inputs,
    arrays: Arrays,
    cost: Cost,
    made: dict[str, Result],
    chosen: Result,
) -> None:
    out, found = settings.out, chosen.arrays
    indices, norms = found["indices"], arrays.get("g")
    seconds = {inputs.stages[name].name: r.seconds for name, r in made.items()}
    seconds["selection"] = chosen.seconds
    with atomic(out / "indices.npy") as file:
        np.save(file, indices)
    if inputs.pool:
        records = [inputs.pool.examples[i].record for i in indices]
        write_jsonl(out / "coreset.jsonl", records)
    scores = {
        "selected": np.isin(np.arange(inputs.sizes[0]), indices),
        "nearest_distance": found["nearest_distance"],
    }
    with atomic(out / "scores.npz") as file:
        np.savez(file, **scores, **({} if norms is None else {"grad_norm": norms}))
    draw(
        out / "report.png",
        train=np.asarray(arrays["x"], np.float32),
        valid=np.asarray(arrays["y"], np.float32),
        grad_norms=norms,
        indices=indices,
        descent=found["trace"][:, 0],
        lower_bound=float(found["lower_bound"]),
        random_objective=float(found["random_objective"]),
        method=settings.method,
    )
    rows = [
        _row(
            settings.method,
            indices,
            found["objective"],
            found,
            cost,
            norms,
            sum(seconds.values()),
        ),
        _row(
            "random",
            found["random_indices"],
            found["random_objective"],
            found,
            cost,
            norms,
            float(found["random_seconds"]),
        ),
    ]
    manifest = _manifest(settings, inputs, found, rows, seconds)
    with atomic(out / "manifest.json") as file:
        file.write((json.dumps(manifest, indent=1) + "\n").encode())
    say(table(rows))
    coreset = "coreset.jsonl, " if inputs.pool else ""
    say(f"{out}: indices.npy, {coreset}scores.npz, manifest.json, report.png")


def _row(
    method: str,
    indices: np.ndarray,
    objective: np.ndarray,
    found: Arrays,
    cost: Cost,
    norms: np.ndarray | None,
    seconds: float,
) -> Row:
    return Row(
        method,
        float(objective),
        float(found["lower_bound"]),
        float(mean_distance(cost, indices)),
        float("nan") if norms is None else float(norms[indices].mean()),
        seconds,
    )


def _manifest(
    settings: Select,
    inputs: Inputs,
    found: Arrays,
    rows: list[Row],
    seconds: dict[str, float],
) -> dict[str, Any]:
    finite = lambda value: value if np.isfinite(value) else None
    plain = lambda value: str(value) if isinstance(value, Path) else value
    device = jax.devices()[0]
    return {
        "goracs_jax": version("goracs-jax"),
        "config": {k: plain(v) for k, v in vars(settings).items()}
        | {"lambda_": inputs.lambda_},
        "inputs": inputs.identity,
        "sizes": dict(zip(("train", "valid"), inputs.sizes, strict=True)),
        "objective_units": "C = D / max(D) - lambda g / max(g)",
        "poo": float(found["objective"]),
        "lower_bound": finite(float(found["lower_bound"])),
        "converged": bool(found["converged"]),
        "trace": [
            {"poo": poo, "seconds": at, "replaced": int(replaced)}
            for poo, at, replaced in found["trace"].tolist()
        ],
        "table": [
            {
                k: finite(v) if isinstance(v, float) else v
                for k, v in row._asdict().items()
            }
            for row in rows
        ],
        "seconds": seconds,
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "host": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in RECORDED},
    }


def _say_plan(settings: Select, inputs: Inputs, selection: Stage) -> None:
    n_train, n_valid = inputs.sizes
    n = settings.budget
    say(f"{n} of {n_train} training examples for {n_valid} validation examples")
    for stage in (*inputs.stages.values(), selection):
        state = "done" if stage.is_done(settings.out) else "to do"
        say(f"{stage.name}: {state}")
    transport = 3 * 8 * n * n_valid / 2**20
    say(f"transport of {n} x {n_valid}: {transport:.0f} MiB; results: {settings.out}")
