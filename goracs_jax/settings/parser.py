"""From the fields of a settings class to a parser of its flags, and to its help."""

import argparse
import difflib
import os
import re
import shutil
import textwrap
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    Union,
    get_args,
    get_origin,
)

from goracs_jax.buckets import as_path
from goracs_jax.errors import InputError
from goracs_jax.settings.common import whole_or_auto
from goracs_jax.settings.flags import Flag, FlagOf, flags_of

WIDTH = 96  # of help, in characters, where the terminal has as many
LONGEST = 48  # up to this length choices stand beside the flag, else below it

# For every type: what help calls a value, and what an error says that it must be.
SINGLE: dict[type, tuple[str, str]] = {
    bool: ("", "given without a value"),
    int: ("INT", "a whole number"),
    float: ("FLOAT", "a number"),
    str: ("NAME", "a text"),
    Path: ("PATH", "a path"),
}
SEVERAL: dict[Callable[[str], Any], str] = {
    int: "whole numbers with commas between them",
    whole_or_auto: "whole numbers with commas between them, or auto",
    float: "numbers with commas between them",
    str: "names with commas between them",
}

# Flags and names with hyphens stay whole.
_wrap = partial(textwrap.wrap, break_on_hyphens=False, break_long_words=False)


class Parser(argparse.ArgumentParser):
    """A parser that raises one line for a mistake instead of leaving the program."""

    def error(self, message: str) -> NoReturn:
        """Raise the line that names the mistake and the verb's own help."""
        line = message.removeprefix("argument ").replace(": must be ", " must be ", 1)
        missing = line.removeprefix("the following arguments are required: ")
        if missing != line:
            line = f"{missing} must be given"
        raise InputError(f"{line}: see {self.prog} --help.")

    def check_names(self, arguments: Sequence[str]) -> None:
        """Refuse a flag that does not exist; this comes before what is missing.

        Raises:
            InputError: The first such flag, with the one that it resembles.
        """
        for argument in arguments:
            name, _, _ = argument.partition("=")
            if name.startswith("--") and name not in self._option_string_actions:
                near = difflib.get_close_matches(name, self._option_string_actions, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                self.error(f"there is no flag {name}{hint}")


class _Layout(argparse.HelpFormatter):
    """Paragraphs and lines stay apart; each is wrapped to the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=_width())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = (" ".join(p.split()) for p in text.split("\n\n"))
        return "\n\n".join("\n".join(_wrap(p, width)) for p in paragraphs)

    def _split_lines(self, text: str, width: int) -> list[str]:
        pieces = []
        for line in text.splitlines():
            # In a table of names, the text of a name is indented to its own column.
            name = re.match(r"\S+ {2,}", line)
            indent = " " * name.end() if name else ""
            pieces += _wrap(line, width, subsequent_indent=indent)
        return pieces


class _Switch(argparse.Action):
    """Sets a field to True for `--flag` and to False for `--no-flag`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, not str(option_string).startswith("--no-"))


def make_parser(kind: type, prog: str) -> Parser:
    """Make a parser of the flags of `kind`, whose namespace has the given fields.

    Required flags come first, then each group under its title.

    >>> from goracs_jax.settings import Demo
    >>> make_parser(Demo, "goracs demo").parse_args(["--lambda", "0.5"])
    Namespace(lambda_=0.5)
    """
    flags = flags_of(kind)
    required = [flag for flag in flags if flag.required]
    needed = [f"--{flag.name} {_value(flag.field.type).metavar}" for flag in required]
    parser = Parser(
        prog=prog,
        usage=_usage([prog, *needed, "[FLAGS]"]),
        description=kind.__doc__,
        formatter_class=_Layout,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
    )
    groups = {}
    for flag in [*required, *(flag for flag in flags if not flag.required)]:
        title = "required" if flag.required else flag.group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add(groups[title], flag)
    last = groups[flags[-1].group]
    last.add_argument("-h", "--help", action="help", help="Print this help and stop.")
    return parser


def _usage(parts: Sequence[str]) -> str:
    """Join the parts on lines that fit, without breaking a part."""
    whole = " ".join(part.replace(" ", "\0") for part in parts)
    lines = _wrap(whole, _width() - len("usage: "), subsequent_indent=" " * 7)
    return "\n".join(lines).replace("\0", " ")


def _width() -> int:
    return max(40, min(shutil.get_terminal_size().columns, WIDTH) - 2)


def _add(group: argparse._ArgumentGroup, flag: FlagOf) -> None:
    value, (name, dest) = _value(flag.field.type), (flag.name, flag.field.name)
    default = value.flag.default
    if not flag.required and flag.field.default is not None:
        default = _as_text(flag.field.default)
    told = f"{flag.help} (default: {default})" if default else flag.help
    more = value.flag.more() if value.flag.more else value.more
    help = f"{told}\n{more}".strip().replace("%", "%%")
    if flag.field.type is bool:
        names = (f"--{name}", f"--no-{name}")
        group.add_argument(*names, dest=dest, action=_Switch, nargs=0, help=help)
    else:
        group.add_argument(
            f"--{name}",
            dest=dest,
            required=flag.required,
            type=value.read,
            metavar=value.metavar,
            help=help,
        )


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _Value(NamedTuple):
    """How help shows the value of a flag, and how it is read."""

    metavar: str
    read: Callable[[str], Any]
    flag: Flag
    more: str = ""


def _value(annotation: Any) -> _Value:
    """Find how help shows a value of this type, and how it is read."""
    flag = Flag()
    if get_origin(annotation) is Annotated:
        annotation, flag = get_args(annotation)
    union = get_origin(annotation) in (Union, types.UnionType)
    kinds = get_args(annotation) if union else (annotation,)
    more = ""
    if flag.each:
        metavar, must = f"{flag.metavar}[,{flag.metavar}...]", SEVERAL[flag.each]
        read = _separated(flag.each)
    elif get_origin(kinds[0]) is Literal:
        choices = get_args(kinds[0])
        metavar, must = f"{{{','.join(choices)}}}", f"one of {', '.join(choices)}"
        read = dict(zip(choices, choices, strict=True)).__getitem__
        if len(metavar) > LONGEST:
            metavar, more = "NAME", f"NAME is {must}."
    else:
        kind = float if float in kinds else kinds[0]
        name, must = SINGLE[kind]
        metavar = flag.metavar or name
        read = _number if int in kinds and float in kinds else READ.get(kind, kind)
    optional = type(None) in kinds

    def value_of(text: str) -> Any:
        if optional and text == "None":  # takes back what a --config file says
            return None
        try:
            return read(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None
        except (ValueError, KeyError):
            message = f"must be {must}, got {text!r}"
            raise argparse.ArgumentTypeError(message) from None

    return _Value(metavar, value_of, flag, more)


def _separated(kind: Callable[[str], Any]) -> Callable[[str], tuple]:
    return lambda text: tuple(dict.fromkeys(map(kind, text.split(","))))


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError
    os.fsencode(text)  # raises for half of a surrogate pair
    return as_path(text)


READ: dict[type, Callable[[str], Any]] = {Path: _path}


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
