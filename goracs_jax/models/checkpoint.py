"""Open the safetensors of a folder, one file or several, and read parts of tensors."""

import json
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes  # also registers the bfloat16 that safetensors asks NumPy for
import numpy as np
from safetensors import SafetensorError, safe_open

from goracs_jax.errors import InputError, one_line
from goracs_jax.files import fetch_again
from goracs_jax.models.folder import PICKLES, inside, read_json
from goracs_jax.models.tensors import Slices, Tensors

#: Beginnings of the names that safetensors gives to floats of 8 bits or fewer.
NARROW = ("F8_", "F6_", "F4")
#: Those of 8 bits that weights and their scales are stored in.
FLOAT8 = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}


def open_safetensors(
    folder: Path, stem: str = "model", *, float8: bool = False
) -> Tensors:
    """Open `<stem>.safetensors`, or the shards of `<stem>.safetensors.index.json`.

    Args:
        folder: The folder of the files.
        stem: First part of the file name.
        float8: Whether floats of 8 bits are read; otherwise they are refused.

    Returns:
        The tensors of all shards.

    Raises:
        InputError: The folder has no such file, or only a pickle, a file is damaged or
            outside the folder, or a tensor is in two files or not where the index says.
    """
    home: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    narrow: dict[str, np.ndarray] = {}
    index = _index(folder, stem)
    local = cache(os.fspath)  # the copy of a bucket's file is looked for once
    for file in sorted(set(index.values())) or [folder / f"{stem}.safetensors"]:
        with _safe_open(file, local(file)) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                if name in home:
                    raise InputError(
                        f"{folder}: tensor {name} is in {home[name].name} and in "
                        f"{file.name}: keep one of them."
                    )
                stored = tensors.get_slice(name)
                shapes[name], home[name] = tuple(stored.get_shape()), file
                kind = stored.get_dtype()
                if kind.startswith(NARROW) and not (float8 and kind in FLOAT8):
                    raise InputError(
                        f"{file}: tensor {name} is stored as {kind}, floats of 8 bits "
                        "or fewer, which are not supported: give the model's folder as "
                        "it was before it was quantised, or a GGUF file."
                    )
        narrow |= _mapped(local(file)) if float8 else {}
    for name in sorted(index.keys() | home.keys()) if index else ():
        if index.get(name) != home.get(name):
            said, found = (
                f"in {there[name].name}" if name in there else "nowhere"
                for there in (index, home)
            )
            raise InputError(
                f"{folder / stem}.safetensors.index.json: tensor {name} is {found}, "
                f"not {said}: fetch the index and the files that it names again."
            )

    def read(name: str, part: Slices = ()) -> np.ndarray:
        if name in narrow:
            return narrow[name][part]
        with _safe_open(home[name], local(home[name])) as tensors:
            kind = tensors.get_slice(name).get_dtype()
            try:
                whole = tensors.get_tensor
                return tensors.get_slice(name)[part] if part else whole(name)
            except (SafetensorError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{home[name]}: tensor {name} is stored as {kind}, which is not "
                    f"read ({one_line(error)}): save the weights as float32 or "
                    "bfloat16."
                ) from None

    return Tensors(str(folder), shapes, read, frozenset(narrow))


def _mapped(file: str) -> dict[str, np.ndarray]:
    """Map the floats of 8 bits of a file into memory, which safetensors does not know.

    A file is the length of its header, in 8 bytes, a header of JSON, which says where
    the bytes of each tensor lie behind it, and these bytes. It has been checked: the
    library has opened it.
    """
    with open(file, "rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
    found = {}
    for name, said in header.items():
        if (kind := FLOAT8.get(said.get("dtype"))) is not None:
            start, _ = said["data_offsets"]
            place = {"offset": 8 + size + start, "shape": tuple(said["shape"])}
            empty = math.prod(place["shape"]) == 0  # nothing can be mapped
            found[name] = (
                np.zeros(place["shape"], kind)
                if empty
                else np.memmap(file, kind, "r", **place)
            )
    return found


def _index(folder: Path, stem: str) -> dict[str, Path]:
    """Return the file of each tensor by the index; empty if all are in one file."""
    single, index = folder / f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    if single.is_file():
        return {}
    if (folder / index).is_file():
        parts = read_json(folder / index)[0].get("weight_map")
        parts = parts if isinstance(parts, dict) else {}
        if not parts or not all(isinstance(file, str) for file in parts.values()):
            raise InputError(
                f"{folder / index}: field 'weight_map' is missing: fetch it again."
            )
        where = folder / index
        paths = {x: inside(folder, x, where) for x in sorted(set(parts.values()))}
        return {name: paths[file] for name, file in parts.items()}
    pickles = [p.name for p in sorted(folder.iterdir()) if p.suffix in PICKLES]
    if pickles:
        raise InputError(
            f"{folder}: no {single.name} (only pickle: {pickles[0]}, never opened, "
            "since it can run any code): load the model with the library that wrote it "
            "and save it as safetensors, as save_pretrained does."
        )
    if parts := sorted(folder.glob(f"{stem}-*.safetensors")):
        raise InputError(
            f"{folder}: no {index}, which says what is in {parts[0].name} and other "
            "parts: fetch it from where the model was published."
        )
    raise InputError(f"{folder}: no {single.name}: save the model as safetensors.")


def _safe_open(file: Path, local: str) -> Any:
    if not os.path.isfile(local):
        fault = "is not a file" if file.exists() else "is missing"
        raise InputError(f"{file}: {fault}: fetch it again.")
    try:
        return safe_open(local, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file}: not a complete safetensors file ({one_line(error)}): "
            f"{fetch_again(Path(local))}."
        ) from None
