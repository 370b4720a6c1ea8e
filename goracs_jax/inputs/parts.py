"""The files of one data set: a file, a folder of shards, a pattern, a saved dataset."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from goracs_jax.buckets import Remote
from goracs_jax.errors import InputError
from goracs_jax.files import check_kind, digest, existing_file, hash_files
from goracs_jax.inputs.streams import unpacked

#: What a saved dataset of Hugging Face says of its files, and one of several splits.
SAVED, SPLITS = "state.json", "dataset_dict.json"
#: Files that lie beside data and are none, by name or suffix.
OTHERS = (
    SAVED,
    SPLITS,
    "dataset_info.json",
    "dataset_infos.json",
    ".md",
    ".yaml",
    ".yml",
    ".lock",
    "",
)
NUMBER = re.compile(r"[0-9]+")
OF = re.compile(r"([0-9]+)-of-([0-9]+)")


def files_of(path: Path) -> list[Path]:
    """Find the files of a data set, in their order.

    Shards are ordered by the numbers in their names: x-2 comes before x-10.

    Args:
        path: A file, a pattern such as `rows-*.parquet`, a folder of shards whose names
            differ by numbers alone, or what `datasets` saves by `save_to_disk`.

    Raises:
        InputError: There is no such file, a shard is missing or there twice, or a
            folder contains several data sets.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for i in (10, 2): (folder / f"x-{i}.npy").touch()
    >>> [file.name for file in files_of(folder)]
    ['x-2.npy', 'x-10.npy']
    """
    check_kind(path)
    if path.is_dir():
        return _saved(path) if (path / SAVED).is_file() else _shards(path)
    if path.exists() or not any(c in path.name for c in "*?["):
        return [path]
    found = sorted(path.parent.glob(path.name), key=_by_number)
    if not found:
        raise InputError(f"no file fits {path}: check the pattern.")
    return _complete(found)


def hash_input(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of several."""
    files = files_of(path)
    if files == [path]:
        return hash_files(path)
    return digest({file.name: hash_files(file) for file in files})


def mib_of(path: Path) -> float:
    """Return the size of all files of a data set in MiB."""
    return sum(file.stat().st_size for file in files_of(path)) / 2**20


def _saved(folder: Path) -> list[Path]:
    state = _mapping(folder / SAVED)
    if state.get("_indices_data_files"):
        raise InputError(
            f"{folder} is a saved dataset with an index of its rows: write it again "
            "with dataset.flatten_indices().save_to_disk(...)."
        )
    listed = state.get("_data_files") or []
    try:
        found = [folder / file["filename"] for file in listed]
    except (KeyError, TypeError):
        raise InputError(
            f"{folder / SAVED} names no files: save the dataset again."
        ) from None
    for file in found:
        if not file.is_file() or file.parent != folder:
            raise InputError(
                f"{folder / SAVED} names {file.name}, which is not there: save the "
                "dataset again."
            )
    if not found:
        raise InputError(f"{folder} is a saved dataset without rows: save it again.")
    return found


def _mapping(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            found = json.load(file)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object: save the dataset again.")
    return found


def _shards(folder: Path) -> list[Path]:
    if (folder / SPLITS).is_file():
        names = _mapping(folder / SPLITS).get("splits")
        names = names if isinstance(names, list) else []
        each = ", ".join(str(folder / str(name)) for name in names)
        raise InputError(f"{folder} has several splits: name one of {each}.")
    is_data = lambda f: f.name not in OTHERS and _kind(f) not in OTHERS
    shown = [f for f in folder.iterdir() if not f.name.startswith(".")]
    inner = {file for file in shown if file.is_dir()}
    found = [f for f in shown if is_data(f) and f not in inner]
    found.sort(key=_by_number)
    if not found:
        cure = f"name one in it, such as {min(inner)}" if inner else "name the file"
        raise InputError(f"{folder} is a folder without files of data: {cure}.")
    stems = {NUMBER.sub("#", file.name): file for file in found}
    if len(stems) > 1:
        names = ", ".join(file.name for file in list(stems.values())[:5])
        raise InputError(
            f"{folder} is a folder of several data sets ({names}): name the file, or a "
            "pattern such as 'train-*.parquet'."
        )
    return _complete(found)


def _complete(found: list[Path]) -> list[Path]:
    """Check that each shard is there once where the names tell how many there are.

    Links can lead nowhere, or to what is no file; buckets have none.
    """
    for file in found:
        if not isinstance(file, Remote):
            existing_file(file)
    told = [match for file in found if (match := OF.search(file.name))]
    sizes = sorted({int(match[2]) for match in told})
    numbers = {int(match[1]) for match in told}
    if len(sizes) > 1 or 0 < len(numbers) < len(told):
        raise InputError(
            f"{found[0].parent} has shards of several data sets, or of several times "
            f"that one was saved ({found[0].name}, {found[-1].name}): give a pattern "
            "that fits those of one."
        )
    if sizes and len(told) == len(found) != sizes[0]:
        raise InputError(
            f"{found[0].parent} has {len(found)} of {sizes[0]} shards of "
            f"{found[0].name}: fetch the others."
        )
    return found


def _kind(file: Path) -> str:
    """Return the suffix of a file's name without that of its packing."""
    return Path(unpacked(file.name)).suffix.lower()


def _by_number(file: Path) -> list[tuple[int, str]]:
    parts: Iterator[str] = iter(re.split(r"([0-9]+)", file.name))
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts]
