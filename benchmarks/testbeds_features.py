"""Features of all rows of a testbed, computed once for all seeds and arms."""

from pathlib import Path

import numpy as np
from common import goracs
from testbeds_pools import Universe

from goracs_jax.data.demo import fetch
from goracs_jax.data.examples import write_jsonl
from goracs_jax.files import atomic
from goracs_jax.models.targets import LINEAR_NAMES

WARM = 0.05  # share of the pool on which the adapter is trained whose gradients count
LAYERS, TARGETS = "last:2", ",".join(LINEAR_NAMES)
DIM = 1024


def embed(universe: Universe, folder: Path) -> None:
    """Embed the prompts of all rows with MiniLM; writes text.npz."""
    found = {}
    for side, data in _files(universe, folder).items():
        out = folder / "text" / f"{side}.npy"
        encoder = ("--encoder", fetch().encoder, "--labels", "answer")
        goracs("embed", "--data", data, *encoder, "--out", out)
        found[side] = np.load(out)
    save(folder / "text.npz", found)


def gradients(universe: Universe, folder: Path) -> None:
    """Project the gradients of all rows; writes gradient.npz.

    They are those of the answer, by a LoRA adapter in the last two layers that was
    trained for a few epochs on a twentieth of the pool, which is in random order.
    """
    files, work = _files(universe, folder), folder / "gradient"
    model, answer = ("--model", fetch().model), ("--labels", "answer")
    work.mkdir(exist_ok=True)
    warm = work / "warm.jsonl"
    write_jsonl(warm, universe.pool[: round(WARM * len(universe.pool))])
    steps = ("--steps", 60, "--warmup-steps", 6, "--batch-size", 16)
    adapter = ("--layers", LAYERS, "--targets", TARGETS, "--dropout", 0)
    goracs(
        *("finetune", "--data", warm, "--valid", warm, *model, *answer, *steps),
        *adapter,
        *("--learning-rate", "3e-3", "--out", work / "adapter"),
    )
    found = {}
    for side, data in files.items():
        norms, rows = work / f"{side}_norms.npy", work / f"{side}.npy"
        goracs(
            *("grads", "--data", data, *model, "--adapter", work / "adapter", *answer),
            *("--which", "all_lora", "--projections", rows, "--projection-dim", DIM),
            *("--out", norms),
        )
        found[side] = np.load(rows)
    save(folder / "gradient.npz", found | {"norms": np.load(work / "train_norms.npy")})


def _files(universe: Universe, folder: Path) -> dict[str, Path]:
    """Write all rows; a row of a feature belongs to each."""
    files = {"train": folder / "pool.jsonl", "valid": folder / "held.jsonl"}
    folder.mkdir(parents=True, exist_ok=True)
    for path, records in zip(files.values(), universe[::2], strict=True):
        write_jsonl(path, records)
    return files


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to an .npz file, all of it or nothing."""
    with atomic(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
