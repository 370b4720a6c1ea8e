"""What comes of each kind of input is right, and docs/inputs.md says so."""

import re

import pytest
from kinds import table

from goracs_jax.errors import InputError

ALL = [
    pytest.param(
        group,
        kind,
        id=kind.name,
        marks=[] if table.here(kind) else pytest.mark.skip(f"{kind.needs} is missing"),
    )
    for group in table.GROUPS
    for kind in group.kinds
]


@pytest.mark.parametrize(("group", "kind"), ALL)
def test_kind(tmp_path, group, kind):
    made = kind.make(tmp_path)
    if kind.line:
        with pytest.raises(InputError, match=kind.line):
            group.read(made)
    else:
        assert group.read(made) == (group.right if kind.right is None else kind.right)


def test_the_table_says_what_comes_of_each():
    """`python tests/kinds/table.py` writes it."""
    written = table.PAGE.read_text().split(table.START)[1].split(table.END)[0]
    found = re.findall(r"^\| (?!kind).*\|\n", written, re.MULTILINE)
    kinds = [(group, kind) for group in table.GROUPS for kind in group.kinds]
    assert len(found) == len(kinds)
    for line, (group, kind) in zip(found, kinds, strict=True):
        assert line.startswith(f"| {kind.name} | ")
        if table.here(kind):
            assert line == table.row(group, kind)
