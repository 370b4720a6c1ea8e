"""The cells of `goracs compare` on disk: select, finetune and evaluate, once each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from goracs_jax.comparison.charges import Sizes, Trained, charged, training_flops
from goracs_jax.comparison.design import FULL, Cell
from goracs_jax.comparison.results import Outcome
from goracs_jax.data.examples import read_records
from goracs_jax.files import digest, hash_files, write_json
from goracs_jax.runs.manifest import made_by
from goracs_jax.runs.stages import UNREADABLE
from goracs_jax.settings import (
    Compare,
    Embed,
    Evaluate,
    Finetune,
    Grads,
    Judging,
    Select,
    Training,
)
from goracs_jax.verbs.arrays import embed, grads, seconds_of
from goracs_jax.verbs.evaluate import evaluate, predictions_of
from goracs_jax.verbs.finetune import finetune, lora_config, training_config
from goracs_jax.verbs.rankings import values_of
from goracs_jax.verbs.select import select

METRICS = "metrics.json"


class Place(NamedTuple):
    """A cell, all that it depends on, and the folder that this names."""

    cell: Cell
    inputs: dict[str, Any]
    folder: Path

    @property
    def predictions(self) -> Path:
        """What its model says of the test examples."""
        return predictions_of(self.folder / METRICS)

    def record(self) -> dict[str, Any] | None:
        """What the finished cell left; nothing where a file is lost or another's."""
        try:
            found = json.loads((self.folder / "cell.json").read_text())
            same = digest(found["inputs"]) == digest(self.inputs)
            whole = found["predictions"] == hash_files(self.predictions)
            return found if same and whole else None
        except UNREADABLE:
            return None


def place_of(settings: Compare, cell: Cell, hashes: Mapping[str, str | None]) -> Place:
    """Where a cell is kept: named by settings and contents, by no path.

    Args:
        settings: Of the verb.
        cell: The cell.
        hashes: SHA-256 of the inputs; that of the encoder counts where rows are chosen,
            because POO is reported of every choice.
    """
    config, labels = training_config(settings)
    trained = asdict(config)
    del trained["tokens_per_batch"]  # memory and speed, not the result
    inputs = {
        "goracs_jax": version("goracs-jax"),
        **cell._asdict(),
        **{name: sha for name, sha in hashes.items() if name != "encoder"},
        "dtype": settings.dtype,
        "labels": labels,
        "training": trained,
        "lora": asdict(lora_config(settings)),
        "task": settings.task,
    }
    if settings.task == "seqrec":
        judged = ("rank_by", "beams", "max_new_tokens")
        inputs |= {name: getattr(settings, name) for name in judged}
    if cell.method != FULL:
        inputs["encoder"] = hashes["encoder"]
    if "gradients" in cell.needs:
        inputs["gradients_seed"] = settings.seed
    return Place(cell, inputs, settings.out / "cells" / digest(inputs)[:16])


class Shared(NamedTuple):
    """What all cells select from: arrays in --out/shared, made by other verbs."""

    settings: Compare
    cells: Sequence[Cell]  # that are to do

    def compute(self, *, dry_run: bool = False) -> None:
        """Compute what the cells need and is not there, or say what that is."""
        s, (_, labels) = self.settings, training_config(self.settings)
        common: dict[str, Any] = {"dtype": s.dtype, "labels": labels}
        common |= {"seed": s.seed, "dry_run": dry_run}
        llm: dict[str, Any] = {"model": s.model, "adapter": s.adapter}
        if any(cell.method != FULL for cell in self.cells):
            embedder = {"encoder": s.encoder} if s.encoder else llm
            for name in ("train", "valid"):
                out, data = self.path(name), getattr(s, name)
                embed(Embed(data=data, out=out, **embedder, **common))
        if any("gradients" in cell.needs for cell in self.cells):
            out, errors = self.path("norms"), self.path("errors")
            grads(Grads(data=s.train, out=out, errors=errors, **llm, **common))

    def path(self, name: str) -> Path:
        """The file of one array."""
        return self.settings.out / "shared" / f"{name}.npy"

    def seconds(self, cell: Cell) -> dict[str, float]:
        """What the cell is charged for."""
        made = {"embeddings": ("train", "valid"), "gradients": ("norms",)}
        return {
            need: sum(seconds_of(self.path(name)) for name in made[need])
            for need in cell.needs
        }


def run_cell(settings: Compare, place: Place, shared: Shared, sizes: Sizes) -> None:
    """Select, fine-tune and evaluate; each goes on where it was stopped.

    Args:
        settings: Of the verb.
        place: The cell; cell.json is its last file.
        shared: What it selects from.
        sizes: For its FLOPs.
    """
    cell, folder = place.cell, place.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "inputs.json", place.inputs)
    data, rows, chosen = settings.train, np.arange(cell.budget), None
    if cell.method != FULL:
        selection = folder / "selection"
        select(_select(settings, cell, shared, selection))
        data, rows = selection / "coreset.jsonl", np.load(selection / "indices.npy")
        chosen = json.loads((selection / "manifest.json").read_text())
    adapter = folder / "adapter"
    training = shared_settings(settings, Training)
    finetune(Finetune(**training, seed=cell.seed, data=data, out=adapter))
    evaluate(
        Evaluate(
            **shared_settings(settings, Judging),
            task=settings.task,
            model=settings.model,
            dtype=settings.dtype,
            seed=cell.seed,
            adapter=adapter,
            out=folder / METRICS,
        )
    )
    trained = json.loads((adapter / "manifest.json").read_text())
    epochs, validations = trained["valid_epochs"][-1], len(trained["valid_epochs"])
    passes = 1 + len(chosen["trace"]) if chosen else 0  # the first finds max(D)
    seconds = shared.seconds(cell)
    if chosen:
        seconds["selection"] = _search_seconds(cell, chosen)
    seconds["training"] = trained["train_seconds"] + trained["valid_seconds"]
    flops = charged(cell, sizes, Trained(rows, epochs, validations), passes)
    everything = np.arange(len(sizes.train.tokens))
    write_json(
        folder / "cell.json",
        {
            "cell": cell._asdict(),
            "inputs": place.inputs,
            "device": made_by(settings)["device"],
            "chosen_on": chosen and chosen["device"],
            "poo": chosen and chosen["poo"],
            "valid_loss": trained["best_valid_loss"],
            "epochs": epochs,
            "seconds": seconds,
            "flops": flops,
            "epoch_flops": training_flops(sizes, Trained(everything, 1, 1)),
            "predictions": hash_files(place.predictions),
        },
    )


def outcome_of(settings: Compare, place: Place, record: dict[str, Any]) -> Outcome:
    """A finished cell, its predictions read."""
    records = [e.record for e in read_records(place.predictions)]
    values = values_of(settings.task, records)
    costs = (record["seconds"], record["flops"])
    return Outcome(values, record["valid_loss"], *costs)


def _select(settings: Compare, cell: Cell, shared: Shared, out: Path) -> Select:
    by_gradients = "gradients" in cell.needs
    return Select(
        train=settings.train,
        valid=settings.valid if cell.by_label else None,
        by_label=cell.by_label,
        train_embeddings=shared.path("train"),
        valid_embeddings=shared.path("valid"),
        grad_norms=shared.path("norms") if by_gradients else None,
        errors=shared.path("errors") if cell.selector == "error" else None,
        method=cell.selector,
        budget=(cell.budget,),
        lambda_=(cell.lambda_ or 0.0,),
        seed=cell.seed,
        out=out,
    )


def _search_seconds(cell: Cell, manifest: dict[str, Any]) -> float:
    # The draw alone: what else is computed of a random subset is for its report.
    if cell.selector == "random":
        return manifest["trace"][-1]["seconds"]
    return manifest["seconds"][f"selection {cell.selector}"]


def shared_settings(settings: Compare, kind: type) -> dict[str, Any]:
    """The settings that another verb of a kind takes over."""
    names = {field.name for field in fields(kind)} - {"config", "dry_run", "seed"}
    return {name: getattr(settings, name) for name in names}
