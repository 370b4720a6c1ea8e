"""Pieces of what accelerator.py needs, for a machine without a network.

    python benchmarks/ship.py make DIR [--mib 56]    on a machine that has one
    python benchmarks/ship.py join DIR INTO          on the other, after each piece

`make` downloads wheels for Python 3.12 on Linux x86-64, which work with jax 0.11.2, and
takes the weights of SmolLM2-135M and tokens of MovieLens prompts from the cache of the
demo. It lays them into the folders DIR/1, DIR/2 and so on, none larger than --mib; a
large file is cut. `join` checks the SHA-256 of every whole file, moves the files to
INTO and installs the wheels into INTO/site. Files that are there already are neither
made nor joined again. It ends by saying which folders are still to be sent, and exits
with 1 if there are any. It needs Python and pip alone. After that:

    PYTHONPATH=INTO/site:. python benchmarks/accelerator.py --pieces INTO
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

INDEX = "index.json"  # a copy in every folder: whole files, their hashes and parts
# What the script imports beside jax and what jax brings (numpy, scipy, ml_dtypes).
# flax up to 0.12.8 cannot be imported with jax 0.11.1 or newer.
WHEELS = (
    "absl-py==2.5.1",
    "equinox==0.13.8",
    "flax==0.12.12",
    "gguf==0.19.0",
    "jaxopt==0.8.5",
    "jaxtyping==0.3.11",
    "lineax==0.1.1",
    "msgpack==1.2.4",
    "optax==0.2.8",
    "ott-jax==0.6.0",
    "POT==0.9.7.post1",
    "PyYAML==6.0.4",
    "rich==15.0.0",
    "safetensors==0.8.0",
    "treescope==0.1.10",
    "typing_extensions==4.16.0",
    "wadler_lindig==0.1.8",
)
PYTHON, GLIBCS = "3.12", (17, 24, 27, 28)  # pip takes each manylinux version by name


def make(folder: Path, mib: int) -> None:
    """Collect all files and cut them into folders of at most so many MiB."""
    with tempfile.TemporaryDirectory() as collected:
        download(Path(collected))
        add_model(Path(collected))
        # The weights come last: the script runs without them.
        size = lambda path: path.stat().st_size
        pack(sorted(Path(collected).iterdir(), key=size), folder, mib << 20)
    print(f"{len(list(folder.iterdir()))} folders in {folder}")


def download(folder: Path) -> None:
    """Download the wheels for the other machine."""
    target = ["--python-version", PYTHON, "--implementation", "cp"]
    for version in GLIBCS:
        target += ["--platform", f"manylinux_2_{version}_x86_64"]
    target += ["--platform", "manylinux2014_x86_64", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*command, *target, "--dest", str(folder), *WHEELS], check=True)


def add_model(folder: Path) -> None:
    """Add the weights, and ids of prompts, which take polars and transformers."""
    import numpy as np
    from accelerator_given import GGUF, TOKENS
    from prompts import prompts

    from goracs_jax.data.demo import fetch

    shutil.copy(fetch().model, folder / GGUF)
    np.savez_compressed(folder / TOKENS, ids=prompts(1024).ids)


def pack(files: list[Path], folder: Path, room: int) -> None:
    """Lay files into numbered folders, each of at most `room` bytes.

    Args:
        files: What is packed, in this order.
        folder: Where the numbered folders are; those of an earlier call are removed,
            and nothing else.
        room: Bytes; the index in each folder is not counted.
    """
    for earlier in folder.glob(f"*/{INDEX}"):
        if earlier.parent.name.isdigit():
            shutil.rmtree(earlier.parent)
    index: dict[str, dict] = {}
    number, left = 1, room
    for path in files:
        data = path.read_bytes()
        parts = []
        while data or not parts:
            if not left:
                number, left = number + 1, room
            part = folder / str(number) / f"{path.name}.{len(parts)}"
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data[:left])
            parts.append(f"{number}/{part.name}")
            data, left = data[left:], left - len(data[:left])
        index[path.name] = {"sha256": hash_of(path), "parts": parts}
    for one in range(1, number + 1):
        (folder / str(one) / INDEX).write_text(json.dumps(index, indent=1))


def join(folder: Path, into: Path) -> list[str]:
    """Join what is there, install the wheels, and return the folders to be sent.

    Raises:
        ValueError: A file that is joined has another hash than the one that was cut.
    """
    indices = sorted(folder.glob(f"*/{INDEX}"))
    if not indices:
        raise FileNotFoundError(f"{folder} has no folder with an {INDEX}.")
    index = json.loads(indices[0].read_text())
    into.mkdir(parents=True, exist_ok=True)
    missing: set[str] = set()
    for name, entry in index.items():
        whole = into / name
        if whole.exists() and hash_of(whole) == entry["sha256"]:
            continue
        parts = [folder / part for part in entry["parts"]]
        absent = {part.parent.name for part in parts if not part.exists()}
        missing |= absent
        if absent:
            continue
        growing = whole.with_name(f"{name}.joining")
        with growing.open("wb") as out:
            for part in parts:
                out.write(part.read_bytes())
        if hash_of(growing) != entry["sha256"]:
            raise ValueError(f"{name} is not what was cut: send its parts again.")
        growing.rename(whole)
    wheels = sorted(into / name for name in index if name.endswith(".whl"))
    if all(wheel.exists() for wheel in wheels):
        install(wheels, into / "site")
    return sorted(missing, key=int)


def install(wheels: list[Path], site: Path) -> None:
    """Install wheels, and nothing that they ask for, into a folder that is not there.

    JAX and what it brings are the machine's own.
    """
    if site.exists() or not wheels:
        return
    half = site.with_name("site.half")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index"]
    command += ["--no-deps", "--no-compile", "--target", str(half)]
    subprocess.run([*command, *map(str, wheels)], check=True)
    half.rename(site)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Make pieces, or join them."""
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawTextHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    making, joining = verbs.add_parser("make"), verbs.add_parser("join")
    making.add_argument("folder", type=Path)
    making.add_argument("--mib", type=int, default=56)
    joining.add_argument("folder", type=Path)
    joining.add_argument("into", type=Path)
    flags = parser.parse_args()
    if flags.verb == "make":
        make(flags.folder, flags.mib)
        return
    missing = join(flags.folder, flags.into)
    if missing:
        raise SystemExit(f"still to be sent: {', '.join(missing)}")
    print(f"all is in {flags.into}")


if __name__ == "__main__":
    main()
