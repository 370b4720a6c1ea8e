"""The exceptions: a mistake in the input, a computation that failed, a signal."""

import platform
import tempfile
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

#: The most characters of a message. The cure stands at its end.
LONGEST, END = 2000, 400


def _printable(text: str) -> str:
    shown = lambda x: x if x.isprintable() else x.encode("unicode_escape").decode()
    return "".join(map(shown, text))


class _OneLine(Exception):
    """An exception whose text is one line, whatever names of files and tensors do."""

    def __init__(self, text: str):
        text = _printable(text)
        if len(text) > LONGEST:
            text = f"{text[: LONGEST - END]} ... {text[-END:]}"
        super().__init__(text)


class InputError(_OneLine, ValueError):
    """A mistake in the user's input: one line says what is wrong, where, and the cure.

    The command line prints the line and exits with code 2. From Python it is a
    `ValueError` like any other. Characters that cannot be printed are escaped.

    >>> raise InputError("budget must be in [1, 10], got 0.")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: budget must be in [1, 10], got 0.
    """


class RecordError(InputError):
    """A mistake in one record of a file, which may be left out.

    Args:
        text: The line for the user, as of any `InputError`.
        kind: What is wrong in a few words, by which such records are counted.

    >>> raise RecordError("t.jsonl:3: output is empty: remove it.", "empty")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.RecordError: t.jsonl:3: output is empty: remove it.
    """

    def __init__(self, text: str, kind: str):
        super().__init__(text)
        self.kind = kind


class NumericalError(_OneLine, ArithmeticError):
    """A computation that failed although its input was valid: one line with the cure.

    It did not converge, found no optimum, or met a number that is not finite. The
    command line prints the line and exits with code 3.

    >>> raise NumericalError("the loss is NaN at step 7: lower the learning rate.")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.NumericalError: the loss is NaN at step 7: lower the ...
    """


class Interrupted(KeyboardInterrupt):
    """A signal that came while a search could still write what it had.

    The command line exits with 128 plus the number of the signal, as shells count.

    >>> Interrupted(15).code
    143
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.code = 128 + number


def one_line(error: BaseException) -> str:
    r"""Return the text of another library's error for a message of one line.

    >>> one_line(ValueError("not\n  JSON"))
    'not JSON'
    """
    try:
        text = textwrap.shorten(str(error), 200, placeholder=" ...")
    except Exception:  # noqa: BLE001 (the text of an error may fail, too)
        text = ""
    return _printable(text) or type(error).__name__


@contextmanager
def located(where: str) -> Iterator[None]:
    """Name a file in every `InputError` that is raised inside, unless it does already.

    Args:
        where: The file; an empty string stands for none.

    >>> with located("config.json"):
    ...     raise InputError("vocab_size is 0: correct it.")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: config.json: vocab_size is 0: correct it.
    """
    try:
        yield
    except InputError as error:
        if not where or str(error).startswith(where):
            raise
        raise InputError(f"{where}: {error}") from None


def log_fault(error: BaseException, arguments: Sequence[str]) -> Path:
    """Write a fault of the program into a file of its own, in the temporary folder.

    Args:
        error: What was raised, with its traceback.
        arguments: Those of the command line.

    Returns:
        The file: the command, the versions of all packages, and the traceback.

    Raises:
        OSError: No file can be written.

    >>> log_fault(KeyError("a"), ["demo"]).read_text().splitlines()[0]
    "goracs ['demo']"
    """
    found = {f"{d.metadata['Name']} {d.version}" for d in distributions()}
    lines = [
        f"goracs {list(arguments)}",
        f"Python {platform.python_version()} on {platform.platform()}",
        ", ".join(sorted(found)),
        *traceback.format_exception(error),
    ]
    with tempfile.NamedTemporaryFile(
        "w", prefix="goracs-", suffix=".log", delete=False, errors="backslashreplace"
    ) as file:
        file.write("\n".join(lines))
    return Path(file.name)
