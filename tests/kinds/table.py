"""Write the table of kinds of input into docs/inputs.md."""

import importlib.util
import re
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "inputs.md"
HEAD = "| kind | what comes of it |\n|---|---|\n"
START, END = "<!-- kinds -->\n", "<!-- end of kinds -->\n"
sys.path.insert(0, str(TESTS))  # where this file is run as a program

from goracs_jax.errors import InputError  # noqa: E402
from kinds import Group, Kind, arrays, buckets, raw, records  # noqa: E402

GROUPS = (records.GROUP, arrays.GROUP, buckets.GROUP, raw.GROUP)


def here(kind: Kind) -> bool:
    """Whether all that the kind needs is installed."""
    return not kind.needs or importlib.util.find_spec(kind.needs) is not None


def outcome(group: Group, kind: Kind, folder: Path) -> str:
    """What comes of a kind: "read", or the line that refuses it."""
    made = kind.make(folder)
    try:
        group.read(made)
    except InputError as error:
        line = str(error).replace(f"{folder}/", "").replace(str(folder), "folder")
        return "refused: " + re.sub(r"([|*_])", r"\\\1", line)
    return "read" if kind.tried else "read (real file untried)"


def row(group: Group, kind: Kind) -> str:
    """The line of the table for a kind."""
    with tempfile.TemporaryDirectory() as folder:
        return f"| {kind.name} | {outcome(group, kind, Path(folder))} |\n"


def rows() -> list[tuple[Group, list[str]]]:
    """The lines of all kinds that can be tried here."""
    return [
        (group, [row(group, kind) for kind in group.kinds if here(kind)])
        for group in GROUPS
    ]


def main() -> None:
    """Write the table."""
    missing = [k.name for group in GROUPS for k in group.kinds if not here(k)]
    if missing:
        sys.exit(f"install the extra `parity` first: {', '.join(missing)}")
    parts = [
        f"\n### {group.title}\n\n{HEAD}{''.join(lines)}" for group, lines in rows()
    ]
    page = PAGE.read_text()
    before, after = page.split(START)[0], page.split(END)[1]
    PAGE.write_text(before + START + "".join(parts) + "\n" + END + after)


if __name__ == "__main__":
    main()
