"""`goracs <verb>`: the fields of a verb's settings are its flags.

Exit code 0 means success; 2 a mistake in the input, 3 a computation that failed and 70
a fault of the program, each with one line on standard error that says what to do; 130
and 143 that Ctrl-C or SIGTERM ended it. A verb is imported when it runs, so that help
and mistakes in flags are printed at once.
"""

import importlib
import math
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any, NamedTuple

from goracs_jax.buckets import as_path
from goracs_jax.cache import cache_folder
from goracs_jax.disk import is_full
from goracs_jax.errors import (
    InputError,
    Interrupted,
    NumericalError,
    log_fault,
    one_line,
)
from goracs_jax.files import read_mapping
from goracs_jax.settings import (
    Check,
    Compare,
    Demo,
    Embed,
    Evaluate,
    Finetune,
    Grads,
    Hub,
    Merge,
    Plan,
    Prepare,
    Select,
    Settings,
)
from goracs_jax.settings.flags import flag_name, flags_of
from goracs_jax.settings.parser import Parser, make_parser
from goracs_jax.settings.paths import check_paths
from goracs_jax.settings.staged import staged

HELP = ("-h", "--help")
#: Where this is set in the environment, faults of the program end in a traceback.
TRACEBACK = "GORACS_TRACEBACK"
#: POT imports every array library that it finds, which takes seconds; here it gets
#: arrays of NumPy alone.
NO_BACKENDS = {
    f"POT_BACKEND_DISABLE_{name}": "1"
    for name in ("PYTORCH", "JAX", "CUPY", "TENSORFLOW")
}
#: Free space that a disk must have for programs to be kept on it, in bytes.
ROOM = 1 << 28
USAGE = """usage: goracs VERB [FLAGS]

Choose what to fine-tune an LLM on.
"""


class Verb(NamedTuple):
    """The settings class of a verb, and the place of its function."""

    settings: type[Settings]
    place: str  # module:function

    def load(self) -> Callable[[Any], None]:
        """Import the module and return the function."""
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)


VERBS = {
    "demo": Verb(Demo, "goracs_jax.verbs.demo:demo"),
    "prepare": Verb(Prepare, "goracs_jax.verbs.prepare:prepare"),
    "embed": Verb(Embed, "goracs_jax.verbs.arrays:embed"),
    "grads": Verb(Grads, "goracs_jax.verbs.arrays:grads"),
    "select": Verb(Select, "goracs_jax.verbs.select:select"),
    "finetune": Verb(Finetune, "goracs_jax.verbs.finetune:finetune"),
    "merge": Verb(Merge, "goracs_jax.verbs.merge:merge"),
    "evaluate": Verb(Evaluate, "goracs_jax.verbs.evaluate:evaluate"),
    "check": Verb(Check, "goracs_jax.verbs.check:check"),
    "compare": Verb(Compare, "goracs_jax.verbs.compare:compare"),
    "plan": Verb(Plan, "goracs_jax.verbs.plan:plan"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb, or print help or the version, and return the exit code.

    >>> main(["--version"])
    goracs_jax ...
    0
    >>> main(["select", "--budget", "1", "--out", "/tmp/none"])  # writes to stderr
    2
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if text := _requested(arguments):
            sys.stdout.write(text)
            return 0
        settings = parse(arguments)
        check_paths(settings)
        os.environ.update(NO_BACKENDS)
        keep_programs()
        with staged(settings) as settings:
            VERBS[arguments[0]].load()(_with_models(settings))
    except InputError as error:
        return _fail(str(error))
    except NumericalError as error:
        return _fail(str(error), code=3)
    except OSError as error:
        # No space, no permission: found in the middle, finished stages stay.
        where = error.filename or "a file cannot be read or written"
        cure = ": make room, and give the same command again" if is_full(error) else ""
        return _fail(f"{where}: {error.strerror or error}{cure}.")
    except Interrupted as stop:
        return _fail("stopped; the best subset so far is written.", code=stop.code)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from here.", code=130)
    except SystemExit:
        raise
    except BaseException as error:
        if os.environ.get(TRACEBACK):
            raise
        return _fail(_unexpected(error, arguments), code=70)
    return 0


def _with_models(settings: Settings) -> Settings:
    """Fetch models that are named as on the hub."""
    if not isinstance(settings, Hub):
        return settings
    from goracs_jax.runs.fetched import with_models  # takes seconds, as the verb does

    return with_models(settings)


def _unexpected(error: BaseException, arguments: Sequence[str]) -> str:
    """Say that this is a fault of the program, and where it can be looked at."""
    place = metadata("goracs-jax").get_all("Project-URL") or ["the project's issues"]
    try:
        log = f"the file {log_fault(error, arguments)}"
    except OSError as full:
        log = f"what {TRACEBACK}=1 shows (no log is written: {one_line(full)})"
    return (
        f"a fault of goracs itself ({type(error).__name__}: {one_line(error)}): report "
        f"it ({'; '.join(place)}) with {log}."
    )


def _requested(arguments: Sequence[str]) -> str:
    """Return the help or version that is asked for; empty where a verb is to run."""
    if not arguments or arguments[0] in HELP:
        return _overview()
    if arguments[0] == "--version":
        return f"goracs_jax {version('goracs-jax')}\n"
    if any(argument in HELP for argument in arguments):
        return _parser(arguments[0]).format_help()
    return ""


def _overview() -> str:
    verbs = (
        f"  {name:<12}{(verb.settings.__doc__ or '').splitlines()[0]}\n"
        for name, verb in VERBS.items()
    )
    flags = (
        "  --version   Print the version and stop.\n"
        "  -h, --help  Print this help and stop; goracs VERB --help lists all flags.\n"
    )
    return f"{USAGE}\nverbs:\n{''.join(verbs)}\nflags:\n{flags}"


def _parser(verb: str) -> Parser:
    if verb not in VERBS:
        raise InputError(f"there is no verb {verb!r}: give one of {', '.join(VERBS)}.")
    return make_parser(VERBS[verb].settings, f"goracs {verb}")


def keep_programs() -> None:
    """Let later runs read compiled programs back, unless JAX has a folder for them.

    All are kept, since a verb has dozens that compile in less than a second each. The
    folder has no limit: with one, JAX keeps nothing more where a single file of another
    run or version lacks its time stamp.

    On a disk that is nearly full programs are only read: JAX would leave a half of one,
    which it never writes again, and warn of each.

    >>> import jax
    >>> keep_programs()
    >>> bool(jax.config.values["jax_compilation_cache_dir"])
    True
    """
    import jax

    warnings.filterwarnings("ignore", "Error .* persistent compilation cache")
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = cache_folder() / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        has_room = shutil.disk_usage(folder).free >= ROOM
    except OSError:  # no folder of this user's: nothing is kept
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    least = 0.0 if has_room else math.inf  # seconds of compilation
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def parse(arguments: Sequence[str]) -> Settings:
    """Read the settings that the arguments and their `--config` file ask for.

    Raises:
        InputError: The verb is unknown, or a flag is missing, unknown or has a value of
            the wrong kind.

    >>> parse(["demo", "--budget", "7"]).budget
    7
    """
    verb = arguments[0] if arguments else ""
    parser = _parser(verb)
    flags = _spelled(with_config(arguments)[1:])
    parser.check_names(flags)
    settings = VERBS[verb].settings(**vars(parser.parse_args(flags)))
    if not 0 <= settings.seed < 2**32:
        raise InputError(f"--seed must be in [0, {2**32 - 1}], got {settings.seed}.")
    return settings


def _spelled(arguments: Sequence[str]) -> list[str]:
    """Rewrite the arguments in the form that the parser reads.

    A flag may be typed with underscores, and a number below 0 is not a flag.

    >>> _spelled(["--dry_run", "--like-above", "-1e9"])
    ['--dry-run', '--like-above=-1e9']
    """
    spelled: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            spelled.append(name.replace("_", "-") + equals + value)
        elif spelled and re.match(r"--[^=]+ -(\d|\.|inf|nan)", f"{spelled[-1]} {name}"):
            spelled[-1] += f"={argument}"
        else:
            spelled.append(argument)
    return spelled


def with_config(arguments: Sequence[str]) -> list[str]:
    """Put the flags of a `--config` file before those that were typed.

    Later flags win, so what is typed overrides the file.

    Raises:
        InputError: The file is missing, not a mapping, or names an unknown flag.

    >>> with_config(["embed", "--out", "e.npy"])
    ['embed', '--out', 'e.npy']
    """
    given = [i for i, text in enumerate(arguments) if text.split("=")[0] == "--config"]
    if not given:
        return list(arguments)
    if len(given) > 1:
        raise InputError("--config is given twice: put all flags into one file.")
    _, equals, value = arguments[given[0]].partition("=")
    value = value if equals else "".join(arguments[given[0] + 1 : given[0] + 2])
    if not value or value.startswith("--"):
        raise InputError("--config must be a path: name a YAML file.")
    return [arguments[0], *_flags(as_path(value), arguments[0]), *arguments[1:]]


def _flags(path: Path, verb: str) -> list[str]:
    known = {flag.name for flag in flags_of(VERBS[verb].settings)} - {"config"}
    flags: dict[str, list[str]] = {}
    for key, value in read_mapping(path, "--config").items():
        if (name := flag_name(str(key))) not in known:
            raise InputError(f"--config {path}: {key!r} is no flag of {verb}.")
        if name in flags:
            raise InputError(f"--config {path}: {name} stands twice: give it once.")
        flags[name] = []
        if isinstance(value, bool):
            flags[name] = [f"--{name}" if value else f"--no-{name}"]
        elif value is not None:
            text = ",".join(_texts(value, f"--config {path}: {name}"))
            flags[name] = [f"--{name}", text]
    return [text for texts in flags.values() for text in texts]


def _texts(value: Any, where: str) -> list[str]:
    """Write one value, or a list of values, as they are typed.

    Raises:
        InputError: They are not plain.
    """
    values = value if isinstance(value, list) else [value]
    try:
        if any(isinstance(each, dict | list | set) for each in values):
            raise ValueError("is nested")
        return [str(each) for each in values]
    except ValueError as error:  # also of an integer with thousands of digits
        raise InputError(
            f"{where}: {error}: give one value, or a list of values."
        ) from None


def _fail(line: str, code: int = 2) -> int:
    sys.stderr.write(f"goracs: {line}\n")
    return code
