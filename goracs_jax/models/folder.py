"""The files of a model's folder: which may be opened, and JSON that means one thing."""

import json
import math
from pathlib import Path
from typing import Any

from goracs_jax.buckets import as_path
from goracs_jax.errors import InputError
from goracs_jax.files import check_kind, fetch_again

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def existing_model(path: str | Path) -> Path:
    """Check that a path is a model folder or file that may be opened.

    Args:
        path: A folder with config.json and safetensors, or a .gguf file.

    Returns:
        The path.

    Raises:
        InputError: The path does not exist, or is a pickle, which can run any code, or
            another kind of file.
    """
    path = as_path(path)
    check_kind(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder: give the path of a model.")
    if path.is_file() and path.suffix in PICKLES:
        raise InputError(
            f"{path}: pickle files can run any code and are never opened: load it with "
            "the library that wrote it and save it as safetensors."
        )
    if path.suffix == ".gguf" and not path.is_file():
        raise InputError(f"{path}: a folder: give the .gguf file that is in it.")
    if path.is_file() and path.suffix != ".gguf":
        raise InputError(
            f"{path}: a model is a .gguf file or a folder with config.json and "
            "safetensors: give one of these."
        )
    for item in path.iterdir() if path.is_dir() else ():
        if item.exists():  # a link that leads nowhere is read by nobody
            check_kind(item)
    return path


def inside(folder: Path, name: str, where: Path) -> Path:
    """Return the path of a file that another file of the same folder names.

    The name of a stage has the hash of a model's folder, which covers the files that
    lie in it. So a file that is named elsewhere would be read and not be hashed, and a
    change of it would go unnoticed; and nobody expects that a model reads other files.

    A file may be a link to another one of the folder. It may also be a link to a blob
    of the same repository in the cache of Hugging Face, where a model's folder is
    models--NAME/snapshots/REVISION or a folder in it, and each file there a link to
    models--NAME/blobs/HASH. The hash of the folder reads through links to files, and
    a blob is never changed. It does not walk through links to folders.

    Args:
        folder: The model's folder.
        name: What the file says, relative to the folder.
        where: The file that says it.

    Raises:
        InputError: The name leads outside the folder, or is none of a file.

    >>> inside(Path("model"), "a/b.json", Path("model/index.json"))
    PosixPath('model/a/b.json')
    >>> inside(Path("model"), "../b.json", Path("model/index.json"))
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: model/index.json: '../b.json' leads outside the ...
    """
    if not (Path(name).name and name.isprintable() and len(name.encode()) < 256):
        raise InputError(f"{where}: {name!r} is no name of a file: fetch it again.")
    path, root = folder / name, folder.resolve()
    try:
        apart = ".." in Path(name).parts or Path(name).is_absolute()
        apart = apart or not path.parent.resolve().is_relative_to(root)
        target = path.resolve()
        ours = target.is_relative_to(root) or target.parent == _blobs(root)
        apart = apart or not ours
    except (OSError, RuntimeError):  # a loop of links
        apart = True
    if apart:
        raise InputError(
            f"{where}: {name!r} leads outside the model's folder: copy the file itself "
            "into the folder and name it there."
        )
    return path


def _blobs(root: Path) -> Path | None:
    """Return where the files of a snapshot lie in the cache of Hugging Face."""
    for folder in root.parents:
        if folder.name == "snapshots" and folder.parent.name.startswith("models--"):
            return folder.parent / "blobs"
    return None


def read_json(path: Path) -> tuple[dict[str, Any], str]:
    """Parse a JSON object and return it with its path as a string.

    Raises:
        InputError: The file is missing or is not a JSON object; see `load_json`.
    """
    raw = load_json(path)
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must be a JSON object, got a {type(raw).__name__}.")
    return raw, str(path)


def load_json(path: Path) -> Any:
    """Parse a JSON file whose numbers are finite and whose keys stand once.

    Raises:
        InputError: The file cannot be read, is not JSON, has a number that is not
            finite (Python's own reader takes NaN and 1e999), or a key twice.
    """
    check_kind(path)
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path}: no such file: copy it from where the model was published."
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): give a file."
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}): {fetch_again(path)}.") from None


def parse_json(text: str) -> Any:
    """Parse JSON whose numbers are finite and whose keys stand once.

    Raises:
        ValueError: It is something else.

    >>> parse_json('{"a": NaN}')
    Traceback (most recent call last):
    ...
    ValueError: NaN is no number of JSON
    """
    try:
        return json.loads(
            text,
            parse_constant=_finite,
            parse_float=_finite,
            object_pairs_hook=_once,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text:.20} is no number of JSON")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r:.60} stands twice")
        found[key] = value
    return found
