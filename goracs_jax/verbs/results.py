"""The files that `goracs select` leaves, and the table that it prints."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from goracs_jax.cost import Cost, nearest_distances
from goracs_jax.data.examples import write_jsonl
from goracs_jax.files import atomic
from goracs_jax.report import Row, figure, table
from goracs_jax.selection.problem import Selection, mean_distance
from goracs_jax.settings import Select
from goracs_jax.stages import Arrays, Result
from goracs_jax.verbs.say import say
from goracs_jax.verbs.sources import Source

RECORDED = ("jax", "jaxlib", "flax", "ott-jax", "POT", "transformers", "numpy", "scipy")


class Chosen(NamedTuple):
    """The subset of one method and the seconds that choosing it took."""

    method: str
    selection: Selection
    seconds: float


def write_results(
    settings: Select,
    source: Source,
    arrays: Arrays,
    cost: Cost,
    made: Mapping[str, Result],
    chosen: Sequence[Chosen],
) -> None:
    """Write the files of the contract for the first method and print the table.

    Args:
        settings: Of the verb.
        source: Where x, y and g came from.
        arrays: x, y and, for lambda > 0, g.
        cost: C.
        made: The finished stages of x, y and g.
        chosen: The method asked for, then what it is compared with.
    """
    out, selection, norms = settings.out, chosen[0].selection, arrays.get("g")
    # The files of an earlier run go first: a manifest means that the rest is its own.
    for name in ("manifest.json", "coreset.jsonl"):
        (out / name).unlink(missing_ok=True)
    with atomic(out / "indices.npy") as file:
        np.save(file, selection.indices)
    if source.pool:
        records = [source.pool.examples[i].record for i in selection.indices]
        write_jsonl(out / "coreset.jsonl", records)
    scores = {
        "selected": np.isin(np.arange(source.n_train), selection.indices),
        "nearest_distance": np.asarray(nearest_distances(cost)),
    }
    if norms is not None:
        scores["grad_norm"] = norms
    with atomic(out / "scores.npz") as file:
        np.savez(file, allow_pickle=False, **scores)
    picture = figure(
        train=np.asarray(arrays["x"], np.float32),
        valid=np.asarray(arrays["y"], np.float32),
        grad_norms=norms,
        chosen={c.method: c.selection for c in chosen},
    )
    with atomic(out / "report.png") as file:
        picture.savefig(file, format="png", dpi=110)
    seconds = {source.stages[symbol].name: r.seconds for symbol, r in made.items()}
    # A bound that one method computed holds for every subset of this size.
    bound = max(c.selection.lower_bound for c in chosen)
    rows = [_row(c, bound, cost, norms, seconds) for c in chosen]
    with atomic(out / "manifest.json") as file:
        seconds |= {f"selection {c.method}": c.seconds for c in chosen}
        manifest = _manifest(settings, source, selection, rows, seconds)
        file.write((json.dumps(manifest, indent=1) + "\n").encode())
    say(table(rows))
    coreset = ["coreset.jsonl"] if source.pool else []
    names = ["indices.npy", *coreset, "scores.npz", "manifest.json", "report.png"]
    say(f"{out}: {', '.join(names)}")


def _row(
    chosen: Chosen,
    bound: float,
    cost: Cost,
    norms: np.ndarray | None,
    seconds: Mapping[str, float],
) -> Row:
    indices = chosen.selection.indices
    # A random draw needs neither embeddings nor gradient norms.
    inputs = 0.0 if chosen.method == "random" else sum(seconds.values())
    return Row(
        chosen.method,
        chosen.selection.objective,
        bound,
        float(mean_distance(cost, indices)),
        float("nan") if norms is None else float(norms[indices].mean()),
        inputs + chosen.seconds,
    )


def _manifest(
    settings: Select,
    source: Source,
    selection: Selection,
    rows: Sequence[Row],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    finite = lambda x: None if isinstance(x, float) and not np.isfinite(x) else x
    plain = lambda x: str(x) if isinstance(x, Path) else x
    device = jax.devices()[0]
    return {
        "goracs_jax": version("goracs-jax"),
        "config": {k: plain(v) for k, v in vars(settings).items()}
        | {"lambda_": source.lambda_},
        "inputs": source.identity,
        "sizes": {"train": source.n_train, "valid": source.n_valid},
        "poo": selection.objective,
        "poo_units": "C = D / max(D) - lambda g / max(g), exact transport",
        "lower_bound": finite(selection.lower_bound),
        "converged": selection.converged,
        "trace": [step._asdict() for step in selection.trace],
        "table": [{k: finite(v) for k, v in row._asdict().items()} for row in rows],
        "seconds": seconds,
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in RECORDED},
    }
