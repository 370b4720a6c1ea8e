"""The result of `goracs select` for a budget and lambda, and the files that keep it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from goracs_jax.data.coreset_files import FORMATS
from goracs_jax.data.examples import read_records, write_jsonl
from goracs_jax.files import together, write_json
from goracs_jax.inputs.parts import files_of
from goracs_jax.inputs.tables import is_parquet, take_rows
from goracs_jax.jobs.leakage import Leaked
from goracs_jax.report.picture import Row, figure, table
from goracs_jax.report.summary import summary_figure
from goracs_jax.runs.kept import Kept
from goracs_jax.runs.say import say
from goracs_jax.selection.by_class import ClassRow
from goracs_jax.selection.problem import Selection, Step
from goracs_jax.settings.outputs import MANIFEST, SELECTED, SUMMARY

#: Budgets with the POO of greedy subsets against held-out validation.
Curve = list[tuple[int, float]]


class GridPoint(NamedTuple):
    """One budget with one lambda."""

    budget: int
    lambda_: float

    @property
    def name(self) -> str:
        """The name of its folder, where there are several.

        It has the fewest digits that give this float, so no two lambdas share a folder.

        >>> GridPoint(64, 0.1).name
        'budget-64-lambda-0.1'
        """
        lambda_ = np.format_float_positional(self.lambda_, trim="-")
        return f"budget-{self.budget}-lambda-{lambda_}"


class Drawn(NamedTuple):
    """What report.png shows beside the result, and no file keeps."""

    train: np.ndarray  # x
    valid: np.ndarray  # y
    chosen: Mapping[str, Selection]  # by method: the one asked for, then the baseline


class Selected(NamedTuple):
    """The subset of a grid point, and what is reported about it."""

    point: GridPoint
    selection: Selection
    table: list[Row]  # the method asked for, then the baseline
    seconds: dict[str, float]  # by stage
    identity: Mapping[str, Any]  # of what was selected from
    n_valid: int
    nearest: Float[np.ndarray, " train"]  # min_j D_ij
    norms: Float[np.ndarray, " train"] | None
    rewards: Float[np.ndarray, " train"] | None  # where they stand in place of norms
    records: list[dict] | None  # the chosen examples, where there are texts
    classes: list[ClassRow] | None  # where the selection is label-aware
    drawn: Drawn | None = None  # None where the result was loaded
    kept: Kept | None = None  # the rows of the files that were selected from
    leaked: Leaked | None = None
    source: Path | None = None  # the file of the training examples
    curve: Curve | None = None  # from which the budget was found
    info: dict[str, Any] | None = None  # of dataset_info.json; None where it was loaded

    @property
    def method(self) -> str:
        """The name of the method that was asked for."""
        return self.table[0].method

    def save(
        self, folder: Path, made: Mapping[str, Any], formats: Sequence[str] = ()
    ) -> None:
        """Write the files of a coreset, all of them or none.

        Args:
            folder: Where they go.
            made: What made them: settings, versions and machine, as `made_by` gives it.
            formats: Keys of `FORMATS` in `goracs_jax.data.coreset_files`, in which the
                coreset is written, too.
        """
        folder.mkdir(exist_ok=True)
        with together(folder, SELECTED, seal=MANIFEST) as new:
            np.save(new / "indices.npy", self._rows)
            if self.records is not None:
                write_jsonl(new / "coreset.jsonl", self.records)
                for file, write, _ in (FORMATS[name] for name in formats):
                    write(new / file, self.records)
            if self.source and all(map(is_parquet, files := files_of(self.source))):
                table = take_rows(files, self._rows)
                if table is not None:
                    table.write_parquet(os.fspath(new / "coreset.parquet"))
            if self.info:
                write_json(new / "dataset_info.json", {"coreset": self.info})
            np.savez(new / "scores.npz", allow_pickle=False, **self._scores())
            if self.drawn:
                self._picture(self.drawn).savefig(new / "report.png", dpi=110)
            write_json(new / MANIFEST, self._manifest(folder, made))
        say(f"{folder}: {', '.join(n for n in SELECTED if (folder / n).exists())}")
        if self.selection.stopped:
            say(
                f"{folder}: the search was stopped; this is the best subset that it "
                "had, and the same command searches anew"
            )

    @classmethod
    def load(cls, folder: Path) -> "Selected":
        """Read a result back, without `drawn`, which no file keeps.

        Raises:
            OSError: A file is missing.
        """
        manifest = json.loads((folder / "manifest.json").read_text())
        with np.load(folder / "scores.npz") as file:
            scores = dict(file)
        coreset = folder / "coreset.jsonl"
        records = None
        if coreset.exists():
            records = [example.record for example in read_records(coreset)]
        selection = Selection(
            np.load(folder / "indices.npy"),
            manifest["poo"],
            manifest["lower_bound"],
            tuple(Step(**step) for step in manifest["trace"]),
            manifest["converged"],
            manifest.get("stopped", False),  # 0.6.0 could not stop
        )
        classes = manifest.get("classes")
        config = manifest["config"]
        return cls(
            point=GridPoint(config["budget"], config["lambda_"]),
            selection=selection,
            table=[_row(Row, row) for row in manifest["table"]],
            seconds=manifest["seconds"],
            identity=manifest["inputs"],
            n_valid=manifest["sizes"]["valid"],
            nearest=scores["nearest_distance"],
            norms=scores.get("grad_norm"),
            rewards=scores.get("reward"),
            records=records,
            classes=classes and [_row(ClassRow, row) for row in classes],
        )

    def _picture(self, drawn: Drawn) -> Figure:
        scored = ("gradient norm", self.norms)
        if self.rewards is not None:
            scored = ("reward", self.rewards)
        return figure(
            train=np.asarray(drawn.train, np.float32),
            valid=np.asarray(drawn.valid, np.float32),
            weighed=scored,
            chosen=drawn.chosen,
            curve=self.curve,
        )

    def _scores(self) -> dict[str, np.ndarray]:
        found = {
            "nearest_distance": self.nearest,
            "grad_norm": self.norms,
            "reward": self.rewards,
        }
        whole = self.kept.spread if self.kept else lambda values: values
        scores = {k: whole(values) for k, values in found.items() if values is not None}
        rows = np.arange(len(scores["nearest_distance"]))
        return {"selected": np.isin(rows, self._rows), **scores}

    @property
    def _rows(self) -> np.ndarray:
        """The chosen rows, as numbers in the files."""
        chosen = self.selection.indices
        return chosen if self.kept is None else self.kept.rows[chosen]

    def _manifest(self, folder: Path, made: Mapping[str, Any]) -> dict[str, Any]:
        asked = {**self.point._asdict(), "out": str(folder)}
        manifest = {
            **made,
            "config": made["config"] | asked,
            "inputs": self.identity,
            "sizes": {"train": len(self.nearest), "valid": self.n_valid},
            "poo": self.selection.objective,
            "poo_units": _units(made["config"], self.rewards is not None),
            "lower_bound": self.selection.lower_bound,
            "converged": self.selection.converged,
            "stopped": self.selection.stopped,
            "trace": [step._asdict() for step in self.selection.trace],
            "table": _plain(self.table),
            "seconds": self.seconds,
        }
        if self.curve:
            manifest["budget_curve"] = [
                {"budget": n, "held_out_poo": value} for n, value in self.curve
            ]
        if self.leaked:
            manifest["leakage"] = self.leaked._asdict()
        return manifest | ({"classes": _plain(self.classes)} if self.classes else {})


def save_summary(out: Path, results: Sequence[Selected]) -> None:
    """Write the results of several grid points side by side, and print them as a table.

    Args:
        out: The folder that has the folders of the grid points.
        results: Their results.
    """
    results = sorted(results, key=lambda r: (r.point.lambda_, r.point.budget))
    rows = [result.table[0] for result in results]
    points = [result.point for result in results]
    by_point = {(p.lambda_, p.budget): row for p, row in zip(points, rows, strict=True)}
    plain = [
        {"budget": p.budget, "lambda": p.lambda_, "folder": p.name, **row}
        for p, row in zip(points, _plain(rows), strict=True)
    ]
    with together(out, SUMMARY, seal="summary.json") as new:
        summary_figure(by_point).savefig(new / "summary.png", dpi=110)
        write_json(new / "summary.json", {"cells": plain})
    named = [
        row._replace(method=f"{p.budget}, {p.lambda_:g}")
        for p, row in zip(points, rows, strict=True)
    ]
    say(table(named, f"{results[0].method}: budget, lambda"))
    say(f"{out}: {', '.join(SUMMARY)}")


def _units(config: Mapping[str, Any], rewarded: bool) -> str:
    reward = "r / max|r|" if rewarded else "g / max(g)"
    return f"C = D / {config.get('scale', 'max')}(D) - lambda {reward}, exact transport"


def _finite(x: Any) -> Any:
    """Replace infinity and NaN, which JSON does not have."""
    return None if isinstance(x, float) and not np.isfinite(x) else x


def _plain(rows: Sequence[Row | ClassRow]) -> list[dict[str, Any]]:
    return [{k: _finite(v) for k, v in row._asdict().items()} for row in rows]


def _row(kind: Any, plain: Mapping[str, Any]) -> Any:
    """Make a row from what `_plain` wrote, with NaN for a number that is absent."""
    absent = {"lower_bound": -np.inf}
    return kind(
        **{k: absent.get(k, np.nan) if v is None else v for k, v in plain.items()}
    )
