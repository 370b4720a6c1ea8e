"""`goracs <verb>`: the dataclasses of `settings` are the flags.

Exit code 0 on success, 2 with one line on standard error for what the user can mend.
"""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import tyro

from goracs_jax.data.demo import cache_folder
from goracs_jax.errors import InputError
from goracs_jax.files import read_mapping
from goracs_jax.settings import (
    Compare,
    Demo,
    Embed,
    Evaluate,
    Finetune,
    Grads,
    Merge,
    Prepare,
    Select,
    Settings,
)
from goracs_jax.verbs.arrays import embed, grads
from goracs_jax.verbs.compare import compare
from goracs_jax.verbs.demo import demo
from goracs_jax.verbs.evaluate import evaluate
from goracs_jax.verbs.finetune import finetune
from goracs_jax.verbs.merge import merge
from goracs_jax.verbs.prepare import prepare
from goracs_jax.verbs.select import select

VERBS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "demo": (Demo, demo),
    "prepare": (Prepare, prepare),
    "embed": (Embed, embed),
    "grads": (Grads, grads),
    "select": (Select, select),
    "finetune": (Finetune, finetune),
    "merge": (Merge, merge),
    "evaluate": (Evaluate, evaluate),
    "compare": (Compare, compare),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code.

    >>> main(["select", "--budget", "1", "--out", "/tmp/none"])  # writes to stderr
    2
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        settings = parse(arguments)
        run = next(run for kind, run in VERBS.values() if type(settings) is kind)
        keep_programs()
        run(settings)
    except InputError as error:
        return _fail(str(error))
    except OSError as error:
        # No space, no permission: found in the middle, finished stages stay.
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}.")
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from here.", code=130)
    return 0


def keep_programs() -> None:
    """Let compiled programs be read back by later runs, unless JAX is told where.

    >>> keep_programs()
    >>> bool(jax.config.values["jax_compilation_cache_dir"])
    True
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        folder = cache_folder() / "programs"
        jax.config.update("jax_compilation_cache_dir", str(folder))


def parse(arguments: Sequence[str]) -> Settings:
    """The settings that the arguments and their `--config` file ask for.

    Raises:
        InputError: A flag is missing, unknown or has a value of the wrong kind.

    >>> parse(["demo", "--budget", "7"]).budget
    7
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            settings = tyro.extras.subcommand_cli_from_dict(
                {verb: kind for verb, (kind, _) in VERBS.items()},
                prog="goracs",
                description="Choose what to fine-tune an LLM on.",
                args=with_config(arguments),
            )
    except SystemExit as stop:
        if stop.code == 2:
            raise InputError(_one_line(box.getvalue())) from None
        raise
    if not 0 <= settings.seed < 2**32:
        raise InputError(f"--seed must be in [0, {2**32 - 1}], got {settings.seed}.")
    return settings


def _one_line(box: str) -> str:
    """What tyro says in a box, without its title, frame and help."""
    lines = [line.strip(" │╭╮╰╯") for line in box.splitlines()]
    # The title is in the upper edge of the frame, or above a line where there is none.
    content = lines[1 if "╭" in box else 2 :]
    ends = (i for i, line in enumerate(content) if line and not line.strip("─-"))
    text = " ".join(" ".join(content[: next(ends, None)]).split())
    return f"{text.rstrip('.')}: see goracs --help."


def with_config(arguments: Sequence[str]) -> list[str]:
    """The arguments with the flags of a `--config` file put before the user's own.

    Later flags win, so what is typed overrides the file.

    Raises:
        InputError: The file is missing, not a mapping, or names an unknown flag.

    >>> with_config(["embed", "--out", "e.npy"])
    ['embed', '--out', 'e.npy']
    """
    for i, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag == "--config":
            path = Path(value or (arguments[i + 1] if i + 1 < len(arguments) else ""))
            return [arguments[0], *_flags(path, arguments[0]), *arguments[1:]]
    return list(arguments)


def _flags(path: Path, verb: str) -> list[str]:
    values = read_mapping(path, "--config")
    kind, _ = VERBS.get(verb, (Settings, None))
    known = {field.name.strip("_") for field in dataclasses.fields(kind)} - {"config"}
    flags = []
    for name, value in values.items():
        if str(name).strip("_").replace("-", "_") not in known:
            raise InputError(f"--config {path}: {name!r} is no flag of {verb}.")
        flag = "--" + str(name).strip("_").replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            listed = value if isinstance(value, list) else [value]
            flags += [flag, ",".join(map(str, listed))]
    return flags


def _fail(line: str, code: int = 2) -> int:
    sys.stderr.write(f"goracs: {line}\n")
    return code
