"""The trials of a study in one Parquet file, from which their folders are made again.

`goracs compare` leaves a folder for every trial, which is one fine-tuned model. Three
files of that folder matter later: `cell.json`, by which `compare` recognises a finished
trial; `metrics.predictions.jsonl`, the model's predictions for the test examples; and
`selection/indices.npy`, the rows that were selected (a trial on all data has none).
results/experiment_NAME.parquet has one row for each trial:

    trial        name of its folder
    method, lambda_, budget, seed
    record       text of cell.json
    indices      selected rows, or null
    predictions  records of metrics.predictions.jsonl, in their order

Packing loses no byte, because `cell.json` holds the SHA-256 of the predictions.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from goracs_jax.files import atomic

RECORD = "cell.json"
PREDICTIONS = "metrics.predictions.jsonl"
INDICES = "selection/indices.npy"


def pack(folder: Path, path: Path) -> None:
    """Write what is kept of all trials in `folder` to one Parquet file.

    Args:
        folder: The folder `cells` of a comparison.
        path: The Parquet file, which is replaced.

    Raises:
        ValueError: `folder` has no finished trial, or a file of a trial would come back
            with other bytes than it has.
    """
    trials = [record.parent for record in sorted(folder.glob(f"*/{RECORD}"))]
    if not trials:
        raise ValueError(f"{folder} has no finished trial (a folder with {RECORD}).")
    rows = [_read_trial(trial) for trial in trials]
    types = {"lambda_": pl.Float64, "indices": pl.List(pl.Int64)}
    # Not strict: what does not fit a column changes, and the comparison finds it.
    frame = pl.DataFrame(
        rows, schema_overrides=types, infer_schema_length=None, strict=False
    )
    for row in frame.iter_rows(named=True):
        for name, content in _files(row).items():
            source = folder / row["trial"] / name
            if source.read_bytes() != content:
                raise ValueError(f"{source} is not as `goracs compare` writes it.")
    with atomic(path) as file:
        frame.write_parquet(file, compression="zstd", compression_level=19)


def unpack(path: Path, folder: Path) -> None:
    """Write the files of every trial in a Parquet file into `folder`, as they were."""
    for row in pl.read_parquet(path).iter_rows(named=True):
        for name, content in _files(row).items():
            target = folder / row["trial"] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def predictions(path: Path) -> pl.DataFrame:
    """Return one row for each trial and test example: trial, its key, prediction."""
    trials = pl.read_parquet(path).drop("record", "indices")
    return trials.explode("predictions").unnest("predictions")


def _read_trial(trial: Path) -> dict[str, Any]:
    record = (trial / RECORD).read_text()
    lines = (trial / PREDICTIONS).read_text().splitlines()
    indices = trial / INDICES
    return {
        "trial": trial.name,
        **json.loads(record)["cell"],
        "record": record,
        "indices": np.load(indices).tolist() if indices.exists() else None,
        "predictions": [json.loads(line) for line in lines],
    }


def _files(row: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of one trial, by their names in its folder."""
    lines = (json.dumps(prediction) + "\n" for prediction in row["predictions"])
    files = {RECORD: row["record"].encode(), PREDICTIONS: "".join(lines).encode()}
    if row["indices"] is not None:
        buffer = io.BytesIO()
        np.save(buffer, np.array(row["indices"], np.int64))
        files[INDICES] = buffer.getvalue()
    return files
