"""Selection by a method, and by a baseline to compare it with, for all grid points."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from goracs_jax.choices import BASELINE
from goracs_jax.cost import Cost, make_cost, nearest_distances, with_lambda
from goracs_jax.data.dataset_info import dataset_info
from goracs_jax.jobs.rows import TRAINED, rows_of
from goracs_jax.jobs.select_config import GIVEN, SelectConfig
from goracs_jax.jobs.select_inputs import SelectInputs
from goracs_jax.jobs.selected import Drawn, GridPoint, Selected
from goracs_jax.report.picture import Row
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.say import waiting
from goracs_jax.runs.stages import Arrays, Result, Stage, run_stage
from goracs_jax.runs.stopping import Stopping
from goracs_jax.selection.by_class import class_table
from goracs_jax.selection.limit import Limit
from goracs_jax.selection.method import FunctionMethod, Method, find_method
from goracs_jax.selection.method.builtin import BUILT_IN
from goracs_jax.selection.problem import Selection, Step, mean_distance
from goracs_jax.selection.sweep import chooser
from goracs_jax.selection.wishes import Wishes


class Loaded(NamedTuple):
    """What all grid points select from, computed once."""

    arrays: Arrays  # x and y in the space, and, where they are needed, g, r and e
    cost: Cost  # for any lambda
    nearest: Float[np.ndarray, " train"]  # min_j D_ij
    seconds: dict[str, float]  # of the stages of x, y and g
    wishes: Wishes | None = None

    def weighed(self, lambda_: float) -> Cost:
        """Return the cost for a lambda, which weighs rewards where there are any."""
        rewards = self.arrays.get("r")
        norms = self.arrays.get("g") if rewards is None else None
        return with_lambda(self.cost, norms, lambda_, rewards)


class Search(NamedTuple):
    """A grid point and its stages, by method: the one asked for, then the baseline."""

    point: GridPoint
    stages: dict[str, Stage]


def run(
    inputs: SelectInputs,
    config: SelectConfig,
    folder: Path,
    stopping: Stopping | None = None,
    loaded: Loaded | None = None,
) -> Iterator[Selected]:
    """Select for every grid point, in the order that shares most work.

    Args:
        inputs: What is selected from.
        config: The method, budgets, lambdas, solver and seed.
        folder: Where stages are kept.
        stopping: Signals to which a search answers with the best subset so far; left
            out, they interrupt it.
        loaded: What `load` gave, if it was called before.

    Yields:
        The result of each grid point, as soon as it is computed, up to a signal.
    """
    loaded = loaded or load(inputs, config, folder)
    for search in searches(inputs, config, loaded, stopping):
        with stopping.listening() if stopping else nullcontext():
            results = _search(search, folder)
        yield _selected(inputs, config.method, search, results, loaded)
        if stopping and stopping.asked():
            return


def searches(
    inputs: SelectInputs,
    config: SelectConfig,
    loaded: Loaded | None = None,
    stopping: Stopping | None = None,
) -> list[Search]:
    """Make the stages of all grid points; none is run.

    Args:
        inputs: What is selected from.
        config: The method, budgets, lambdas, solver and seed.
        loaded: The arrays and the cost; left out where stages are only looked up.
        stopping: As for `run`.
    """
    asked, baseline = config.method, find_method(BASELINE)
    methods = {method.name: method for method in (baseline, asked)}
    asks = [stopping.asked] if stopping else []

    @cache
    def choose(name: str) -> Callable[[int, float], Selection]:
        assert loaded is not None
        return chooser(
            loaded.cost,
            config.budgets,
            key=jax.random.key(config.seed),
            method=methods[name],
            solver=config.solver,
            grad_norms=loaded.arrays.get("g"),
            rewards=loaded.arrays.get("r"),
            prediction_errors=loaded.arrays.get("e"),
            classes=inputs.classes,
            limit=partial(Limit.after, config.time_limit, *asks),
            wishes=loaded.wishes,
        )

    def stage(method: str, point: GridPoint) -> Stage:
        depends_on = {
            **inputs.identity,
            **config.identity,
            "budget": point.budget,
            "lambda": point.lambda_,
            "method": method,
            "solver": config.solver,
            "seed": config.seed,
            **settings_of(methods[method]),
        }

        def compute(_: object) -> Arrays:
            return _to_store(choose(method)(*point))

        name = f"selection {method}"
        revision = revision_of(name)
        return Stage(name, depends_on, compute, revision=revision, whole=_ended)

    names = dict.fromkeys([asked.name, BASELINE])
    return [
        Search(point, {name: stage(name, point) for name in names})
        for point in config.points
    ]


def settings_of(method: Method) -> dict[str, Any]:
    """What names the selections of a method beside its name: settings of its own.

    Built-in methods have none. Of a method that is made from a function only the name
    is known: one that chooses otherwise needs another name.

    >>> settings_of(find_method("goracs"))
    {}
    """
    made = isinstance(method, FunctionMethod) or not is_dataclass(method)
    if made or method in BUILT_IN:
        return {}
    told = ("name", "about", "needs", "weighed", "space", "reward", "heeds")
    return {"settings": {k: repr(v) for k, v in vars(method).items() if k not in told}}


def load(inputs: SelectInputs, config: SelectConfig, folder: Path) -> Loaded:
    """Load x, y, g and e, given or from their stages, and make the cost."""
    for stage in inputs.stages.values():
        if not stage.is_done(folder):
            stage.prepare()
    done = {symbol: run_stage(folder, s) for symbol, s in inputs.stages.items()}
    arrays = dict(inputs.arrays)
    arrays |= {
        symbol: rows_of(result.arrays)
        for symbol, result in done.items()
        if symbol not in TRAINED
    }
    if "g" in done:
        arrays.setdefault("e", done["g"].arrays["errors"])  # from the same pass
    pairs = {
        source: (arrays[x], arrays[y]) for source, (x, y) in config.symbols.items()
    }
    if config.reward_source:
        rows = pairs.get(config.reward_source) or pairs[GIVEN]
        labels = inputs.classes and inputs.classes[1:]
        arrays["r"] = config.reward.of(*rows, labels)
    arrays["x"], arrays["y"] = config.space.of(
        [pairs[source.name] for source in config.space.parts]
    )
    rewards = arrays.get("r")
    cost = make_cost(
        arrays["x"],
        arrays["y"],
        arrays.get("g") if rewards is None else None,
        max(config.lambdas),
        rewards=rewards,
        scale=config.scale,
        valid_weights=inputs.wished and inputs.wished.weights,
    )
    wishes = inputs.wished.of(cost) if inputs.wished else None
    seconds = {inputs.stages[s].name: result.seconds for s, result in done.items()}
    nearest = np.asarray(nearest_distances(cost))
    return Loaded(arrays, cost, nearest, seconds, wishes)


def _search(search: Search, folder: Path) -> dict[str, Result]:
    """Run the stages of a grid point."""
    results = {}
    for method, stage in search.stages.items():
        with waiting(f"{search.point.name}: selection by {method}"):
            results[method] = run_stage(folder, stage)
    return results


def _selected(
    inputs: SelectInputs,
    asked: Method,
    search: Search,
    results: Mapping[str, Result],
    loaded: Loaded,
) -> Selected:
    """Gather what is reported about a grid point."""
    point, norms = search.point, loaded.arrays.get("g")
    found = {method: _stored(result.arrays) for method, result in results.items()}
    seconds = dict(loaded.seconds) | {
        stage.name: results[method].seconds for method, stage in search.stages.items()
    }
    # A bound that one method computed is valid for every subset of this size.
    bounds = [selection.lower_bound for selection in found.values()]
    bound = max((b for b in bounds if b is not None), default=-np.inf)
    table = []
    for method, selection in found.items():
        rows = selection.indices
        needs = asked.needs if method == asked.name else find_method(method).needs
        earlier = sum(loaded.seconds.values()) if needs else 0.0
        table.append(
            Row(
                method,
                selection.objective,
                bound,
                float(mean_distance(loaded.cost, rows)),
                float("nan") if norms is None else float(norms[rows].mean()),
                earlier + seconds[f"selection {method}"],
            )
        )
    selection, *_ = found.values()
    classes, records, info = None, None, None
    if inputs.classes:
        weighed = loaded.weighed(point.lambda_)
        classes = class_table(weighed, inputs.classes, selection.indices)
    if inputs.pool:
        rows = selection.indices.tolist()
        records = [inputs.pool.whole(row) for row in rows]
        examples = [inputs.pool.examples[row] for row in rows]
        info = dataset_info(examples, "coreset.jsonl")
    return Selected(
        point=point,
        selection=selection,
        table=table,
        seconds=seconds,
        identity=inputs.identity,
        n_valid=inputs.n_valid,
        nearest=loaded.nearest,
        norms=norms,
        rewards=loaded.arrays.get("r"),
        records=records,
        classes=classes,
        drawn=Drawn(loaded.arrays["x"], loaded.arrays["y"], found),
        kept=inputs.kept,
        leaked=inputs.leaked,
        source=inputs.pool and inputs.pool.path,
        info=info,
    )


def _to_store(found: Selection) -> Arrays:
    """Return a selection as arrays; one that was stopped has one more."""
    plain = found._asdict()
    if found.lower_bound is None:
        plain["lower_bound"] = -np.inf
    if not found.stopped:
        del plain["stopped"]
    return {name: np.asarray(value) for name, value in plain.items()}


def _ended(arrays: Arrays) -> bool:
    """Tell whether a search ended by itself, as all have that are kept."""
    return "stopped" not in arrays


def _stored(arrays: Arrays) -> Selection:
    """Make a selection of the arrays that its stage stored."""
    trace = (Step(poo, at, int(replaced)) for poo, at, replaced in arrays["trace"])
    bound = float(arrays["lower_bound"])
    return Selection(
        arrays["indices"],
        float(arrays["objective"]),
        bound if np.isfinite(bound) else None,
        tuple(trace),
        bool(arrays["converged"]),
        stopped=not _ended(arrays),
    )
