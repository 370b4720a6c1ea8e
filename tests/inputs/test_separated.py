"""Separated text is read as Python's csv module reads it, and mistakes stay small."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goracs_jax.inputs.separated import Style, parse, read_head
from goracs_jax.inputs.streams import lines_of

HEAD = "name,user,item"
CELLS = st.text(st.sampled_from(list('ab",;\t\n é1')), max_size=6)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=6)


def read(text, style=Style()):  # noqa: B008
    lines = lines_of(io.BufferedReader(io.BytesIO(text.encode())))
    return list(parse(lines, read_head(text.split("\n")[0], style)))


@settings(deadline=None)
@given(ROWS, st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]))
def test_quoted_text_is_that_of_the_csv_module(rows, by, end):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=by, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(HEAD.split(","))
    writer.writerows(rows)
    found = [list(record.fields.values()) for record in read(file.getvalue())]
    expected = csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=by)
    assert found == list(expected)[1:]


@pytest.mark.parametrize("bad", ['"a,u,i', 'a,"u,i', '"a"b,u,i', "a,u", "a,b,u,i"])
def test_a_bad_line_costs_itself_alone(bad):
    good = ["x,u,1", '"y\nz",v,2', '"""q""",w,3']
    found = read("\n".join([HEAD, good[0], bad, *good[1:]]))
    names = [record.fields["name"] for record in found if not record.error]
    assert names == ["x", "y\nz", '"q"']
    (wrong,) = [record for record in found if record.error]
    assert wrong.place == ":3"


def test_quotes_that_quote_nothing_beside_tabs():
    found = read('name\tuser\titem\n"Thing" is\tu\t1\n"Weird\tv\t2\n"a\tb"\tw\t3\n')
    names = [record.fields["name"] for record in found]
    assert names == ['"Thing" is', '"Weird', "a\tb"]


def test_marks_behind_a_backslash():
    """They are read so where RFC 4180 has no reading, and nowhere else."""
    rows = [r'"say \"hi\", ok",u,1', 'x,"C:\\",2', '"a\n\\"b\\"",v,3', r'"\d",w,4']
    found = read("\n".join([HEAD, *rows]))
    names = [record.fields["name"] for record in found]
    assert names == ['say "hi", ok', "x", 'a\n"b"', r"\d"]
    assert found[1].fields["user"] == "C:\\"
    assert found[3].place == ":6"
