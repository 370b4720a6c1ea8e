import gzip
import json

import pytest

from goracs_jax.data.formats import FORMATS
from goracs_jax.data.interactions import RATINGS, TITLES
from goracs_jax.data.raw import read_rows
from goracs_jax.data.raw_files import RawFiles
from goracs_jax.data.raw_rows import to_interactions, to_titles
from goracs_jax.errors import InputError
from goracs_jax.inputs.records import How

GOOD = {"reviewerID": "u", "asin": "i", "overall": 4, "unixReviewTime": 7}
BAD = {
    "cut off": (b'{"reviewerID": "u", "asin', "Unterminated string"),
    "no object": (b"[1]", "not an object but list"),
    "no user": (json.dumps(GOOD | {"reviewerID": None}).encode(), "'reviewerID' is mi"),
    "user true": (json.dumps(GOOD | {"reviewerID": True}).encode(), "is no id"),
    "no time": (b'{"reviewerID": "u", "asin": "i"}', "'unixReviewTime' is not a numb"),
    "text time": (
        json.dumps(GOOD | {"unixReviewTime": "noon"}).encode(),
        "'unixReviewTime' is neither number nor date: 'noon'",
    ),
    "infinite": (json.dumps(GOOD | {"overall": 1e999}).encode(), "is not finite"),
    "huge": (json.dumps(GOOD | {"overall": 10**400}).encode(), "too large"),
    "encoding": (b'{"asin": "\xff"}', "can't decode byte 0xff"),
    "surrogate": (json.dumps(GOOD | {"asin": "\ud800"}).encode(), "codec can't encode"),
    "NUL": (json.dumps(GOOD | {"asin": "a\0"}).encode(), "has the character NUL"),
    "a megabyte": (
        json.dumps(GOOD | {"asin": "a" * 10**6}).encode(),
        "'asin' has 1,000,000 characters",
    ),
    "nested": (b"[" * 100_000, "recursion"),
}


def read(path, max_bad=0.5, name="amazon-2018", **options):
    kind = FORMATS[name]
    files = RawFiles(name, kind, path, path, kind.columns)
    rows = to_interactions(files)
    return read_rows(path, How(), rows, RATINGS, max_bad=max_bad, **options)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("zipped", [False, True])
def test_bad_lines_are_counted_and_shown(tmp_path, name, zipped):
    bad, reason = BAD[name]
    good = json.dumps(GOOD).encode()
    # The first line is not to blame, blank lines count only as places.
    text = b"\xef\xbb\xbf" + b"\r\n".join([good, b"", bad, good, bad, b""])
    path = tmp_path / "r.json.gz"
    path.write_bytes(gzip.compress(text) if zipped else text)
    reading = read(path)
    assert reading.rows.rows() == [("u", "i", 4.0, 7.0)] * 2
    assert (reading.lines, reading.bad) == (4, 2)
    assert [line.split("r.json.gz:")[1][0] for line in reading.first] == ["3", "5"]
    assert reason in reading.first[0]
    with pytest.raises(
        InputError, match=r"2 of 4 lines cannot be read, more than 49 %: .*gz:3: .*gz:5"
    ):
        read(path, max_bad=0.49)


@pytest.mark.parametrize(
    ("bad", "cure"),
    [
        (
            {"unixReviewTime": None},
            r"write times as numbers or as 2019-12-31 .* file or ",
        ),
        (
            {"unixReviewTime": "31/12/2019"},
            r"write times as .* --order file or --order ",
        ),
        (
            {"unixReviewTime": "7,5"},
            r"write times as .* --order file or --order random",
        ),
        ({"overall": "4,5"}, r": write numbers as 1234\.5, check --format"),
        ({"asin": ""}, r": correct them, check --format, or raise --max-bad"),
        (
            {"overall": "4,5", "unixReviewTime": ""},
            r"write numbers as 1234\.5, check",
        ),
    ],
)
def test_the_cure_is_that_of_the_first_bad_values(tmp_path, bad, cure):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(GOOD | bad))
    with pytest.raises(InputError, match=cure):
        read(path)


def test_only_the_first_bad_lines_are_shown(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(f"{json.dumps(GOOD)}\n" + "x\n" * 9)
    assert len(read(path, max_bad=1.0).first) == 3


def test_a_million_byte_reason_is_cut(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(GOOD | {"unixReviewTime": "x" * 10**6}))
    assert len(read(path, max_bad=1.0).first[0]) < len(str(path)) + 100


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-9], r"is damaged or cut off .*: fetch it again"),
        (lambda data: data[:20] + b"xx" + data[22:], r"is damaged or cut off"),
    ],
)
def test_damaged_archives(tmp_path, spoil, message):
    path = tmp_path / "r.json.gz"
    path.write_bytes(spoil(gzip.compress(json.dumps(GOOD).encode() * 50)))
    with pytest.raises(InputError, match=message):
        read(path)


def test_more_rows_than_a_chunk(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("".join(json.dumps(GOOD | {"asin": i}) + "\n" for i in range(8)))
    assert read(path, chunk=3).rows["item"].to_list() == list("01234567")


@pytest.mark.parametrize(
    ("line", "fields"), [("u,i,3", 3), ("u,i,3,7,Heat, The", 6), ('u,i,3,7,"Heat', 0)]
)
def test_lines_that_do_not_fit_the_header(tmp_path, line, fields):
    path = tmp_path / "r.csv"
    path.write_text(f'user_id,item_id,rating,timestamp,title\n{line}\nu,i,3,7,"H, T"\n')
    reading = read(path, name="csv")
    assert (reading.bad, len(reading.rows)) == (1, 1)
    assert f":2: {fields} fields where 5" in reading.first[0] or not fields


def test_literals_are_never_executed(tmp_path):
    path = tmp_path / "meta.json"
    path.write_text("{'asin': __import__('os').getcwd(), 'title': 'x'}\n")
    kind = FORMATS["amazon-2014"]
    rows = to_titles(RawFiles("", kind, path, path, kind.columns))
    reading = read_rows(path, How(), rows, TITLES, max_bad=1.0)
    assert (reading.bad, len(reading.rows)) == (1, 0)


@pytest.mark.parametrize(
    ("title", "found"),
    [
        (" A  b ", [("i", "A b")]),
        ("\u200b", [("i", None)]),
        (1984, [("i", "1984")]),
        ("A\0", []),
        ("A" * 600_000, []),
        ("\ud800", []),
    ],
)
def test_titles_that_an_example_could_not_have(tmp_path, title, found):
    """What `read_examples` refuses in an example is no title of one."""
    path = tmp_path / "meta.json"
    path.write_text(json.dumps({"asin": "i", "title": title}))
    kind = FORMATS["amazon-2018"]
    rows = to_titles(RawFiles("", kind, path, path, kind.columns))
    reading = read_rows(path, How(), rows, TITLES, max_bad=1.0)
    assert (reading.rows.rows(), reading.bad) == (found, not found)
