"""No output takes the place of an input: one rule for the flags of all verbs."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path

from goracs_jax.buckets import as_path
from goracs_jax.errors import InputError
from goracs_jax.files import check_kind
from goracs_jax.settings.common import Settings
from goracs_jax.settings.flags import FlagOf, flags_of

#: What every folder of results has beside its files while a verb runs.
WORKING = ("{name}/.lock", "{name}/.writable", "{name}/.writing/*")

GLOB = re.compile(r"[*?[]")


def check_paths(settings: Settings, *more: Path) -> None:
    """Refuse devices and pipes, and outputs whose place is taken.

    No output lies on or in what is read, or where there is a folder of its name.

    The flags that name an output say what is written there (`Flag.writes`). All other
    paths are read, the file of flags too.

    Args:
        settings: The flags.
        more: Files that are read beside them.

    Raises:
        InputError: The first path that is wrong, and its flag.

    >>> from goracs_jax.settings import Merge
    >>> check_paths(Merge(model=Path("m"), adapter=Path("m/a"), out=Path("m/merged")))
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: --out m/merged lies in the input m: choose another.
    """
    outputs, inputs = [], list(more)
    for flag in flags_of(type(settings)):
        value = getattr(settings, flag.field.name)
        if isinstance(value, Path) and flag.flag.writes:
            outputs.append((flag, value))
        else:
            inputs += _read(flag, value)
    for path in (*inputs, *(out for _, out in outputs)):
        check_kind(path)
    for flag, out in outputs:
        for path in inputs:
            _check_apart(flag, out, path)
        _check_free(flag, out)
    if len({out.resolve() for _, out in outputs}) < len(outputs):
        raise InputError("two outputs have the same name: give each its own file.")


def _read(flag: FlagOf, value: object) -> list[Path]:
    """List the files and folders that a flag names to be read."""
    if isinstance(value, Path):
        found = value.parent.glob(value.name) if GLOB.search(value.name) else ()
        # An array of a file may be named behind it.
        file, colon, _ = str(value).rpartition(":")
        return [value, *found, *([as_path(file)] if colon and file else [])]
    values = value if isinstance(value, tuple) else (value,)
    named = [str(v) for v in values if flag.flag.reads and v is not None]
    found = (re.findall(flag.flag.reads, name) for name in named)
    return [as_path(name) for names in found for name in names]


def _check_apart(flag: FlagOf, out: Path, path: Path) -> None:
    for source in _places(path):
        if out.resolve().is_relative_to(source):
            raise InputError(
                f"--{flag.name} {out} lies in the input {path}: choose another."
            )
        for pattern in _patterns(flag, out):
            if fnmatchcase(str(source), pattern):
                raise InputError(
                    f"--{flag.name} {out} would write over the input {path}: choose "
                    "another."
                )
            if as_path(pattern).is_relative_to(source):
                raise InputError(
                    f"--{flag.name} {out} would write into the input {path}: choose "
                    "another."
                )


def _check_free(flag: FlagOf, out: Path) -> None:
    # What ends in a star is in a folder that has folders of its own.
    files = (pattern for pattern in _patterns(flag, out) if not pattern.endswith("/*"))
    for path in (Path(found) for pattern in files for found in glob(pattern)):
        if path.is_dir():
            raise InputError(
                f"--{flag.name} {out} would write {path.name}, and a folder has that "
                "name there: choose another."
            )


def _patterns(flag: FlagOf, out: Path) -> Iterator[str]:
    """Yield the absolute patterns of what is written, also under its first name."""
    for place in _places(out):
        escape = lambda text: GLOB.sub(r"[\g<0>]", text)
        known = {"name": escape(place.name), "stem": escape(place.stem)}
        for pattern in (*flag.flag.writes, *WORKING):
            whole = f"{escape(str(place.parent))}/{pattern.format(**known)}"
            yield from (whole, whole + ".part")


def _places(path: Path) -> tuple[Path, Path]:
    """Return where a path is, as it is named and behind all links."""
    return path.parent.resolve() / path.name, path.resolve()
