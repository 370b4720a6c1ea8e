from typing import get_args

import pytest
import raw_files

from goracs_jax.choices import FormatName
from goracs_jax.data.demo import fetch
from goracs_jax.data.formats import FORMATS
from goracs_jax.data.interactions import read_raw, tidy
from goracs_jax.data.raw_files import find_raw_files
from goracs_jax.data.splits import make_log, split_by_time
from goracs_jax.errors import InputError

NEVER_CERTAIN = ("csv", "jsonl", "parquet")


def test_flags_and_files_name_the_same_formats():
    assert set(get_args(FormatName)) == set(FORMATS) == set(raw_files.WRITERS)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_table(tmp_path, name):
    raw = read_raw(find_raw_files(name, *raw_files.write(name, tmp_path)), max_bad=0.0)
    expected = raw_files.RATINGS
    if name in raw_files.UNRATED:
        expected = [(user, item, None, time) for user, item, _, time in expected]
    assert raw.ratings.rows.rows() == expected
    titles = {item: title for item, title in raw.titles.rows.rows() if title}
    assert titles == raw_files.TITLES
    assert (raw.ratings.lines, raw.ratings.bad) == (len(raw_files.RATINGS), 0)


@pytest.mark.parametrize("name", FORMATS)
def test_auto_is_right_or_refuses(tmp_path, name):
    path, metadata = raw_files.write(name, tmp_path)
    if name in NEVER_CERTAIN:
        with pytest.raises(
            InputError, match=r"is not recognised: .*give --format, one"
        ):
            find_raw_files("auto", path, metadata)
    else:
        assert find_raw_files("auto", path, metadata).name == name


def test_auto_refuses_a_folder_of_two_formats(tmp_path):
    for name in ("movielens-100k", "movielens-1m"):
        raw_files.write(name, tmp_path)
    with pytest.raises(InputError, match=r"fits movielens-100k and movielens-1m: name"):
        find_raw_files("auto", tmp_path)


def test_a_folder_whose_files_have_no_fixed_names(tmp_path):
    """Following each line leads on."""
    ratings, titles = raw_files.write("amazon-2018", tmp_path)
    with pytest.raises(InputError, match="not recognised: name the file of interactio"):
        find_raw_files("auto", tmp_path)
    with pytest.raises(InputError, match="amazon-2018 needs --metadata: the titles"):
        find_raw_files("auto", ratings)
    assert find_raw_files("auto", ratings, titles).name == "amazon-2018"


@pytest.mark.parametrize("name", ["latin-1", "ISO-8859-1", "cp1252"])
def test_latin_1_is_that_of_windows(tmp_path, name):
    path = tmp_path / "a.csv"
    text = "user_id,item_id,rating,timestamp,title\nu,i,1,1,It\u2019s caf\u00e9\n"
    path.write_bytes(text.encode("cp1252"))
    raw = read_raw(find_raw_files("csv", path, encoding=name))
    assert raw.titles.rows.rows() == [("i", "It\u2019s caf\u00e9")]


def test_spaces_around_ids_are_none_of_them(tmp_path):
    rows = ["user_id, item_id, rating, timestamp", "u, i, 1, 1"]
    path = raw_files.lines(tmp_path / "a.csv", rows)
    names = raw_files.lines(tmp_path / "b.csv", ["item_id,title", "i,Alien"])
    raw = read_raw(find_raw_files("csv", path, names))
    assert raw.ratings.rows.rows() == [("u", "i", 1.0, 1.0)]
    assert raw.titles.rows.rows() == [("i", "Alien")]


def test_named_columns(tmp_path):
    path = raw_files.lines(
        tmp_path / "a.csv", ["who,what,when,name", "u,i,2020-01-01T00:00:01,Alien"]
    )
    columns = {"user": "who", "item": "what", "time": "when", "title": "name"}
    raw = read_raw(find_raw_files("csv", path, columns=columns))
    # 2020-01-01 is 18,262 days after 1970-01-01.
    assert raw.ratings.rows.rows() == [("u", "i", None, 18_262 * 86_400 + 1.0)]
    assert raw.titles.rows.rows() == [("i", "Alien")]


def test_dates_with_a_zone(tmp_path):
    rows = ["u,i,Alien,2020-01-01T01:00:00+01:00", "u,j,Blow,2020-01-01T00:00:00Z"]
    path = raw_files.lines(
        tmp_path / "a.csv", ["user_id,item_id,title,timestamp", *rows]
    )
    first, second = read_raw(find_raw_files("csv", path)).ratings.rows["timestamp"]
    assert first == second


@pytest.mark.parametrize(
    ("head", "columns", "message"),
    [
        ("user,item_id,timestamp,title", {}, r"no column 'user_id', .*--user-column"),
        ("user_id,item_id,title", {}, r"no column 'timestamp'.*--time-column"),
        ("user_id,item_id,timestamp", {}, r"no column 'title'.*--title-column"),
        ("user_id,item_id,timestamp,a_title,b_title", {}, r"no column 'title'"),
        (
            "user_id,item_id,timestamp,title",
            {"rating": "stars"},
            r"no column 'stars'.*--rating-column",
        ),
        (
            "user_id,item_id,timestamp,title",
            {"user": "9", "item": "2", "time": "3", "title": "4"},
            r"has 4 columns and no column 9: give --user-column a number from 1",
        ),
    ],
)
def test_headers_that_lack_a_column(tmp_path, head, columns, message):
    path = raw_files.lines(tmp_path / "a.csv", [head])
    with pytest.raises(InputError, match=message):
        find_raw_files("csv", path, columns=columns)


NUMBERS = {"user": "0", "item": "1", "rating": "2", "time": "3", "title": "4"}
ROWS = ["7,8,4,1000,Heat", "9,8,2,1001,Heat"]


@pytest.mark.parametrize("index", ["", ","])
def test_columns_that_pandas_has_numbered(tmp_path, index):
    """The line 0,1,2,... has names: it was read as a rating by user 0."""
    lines = [index + ",".join("01234"), *(f"{index and '5,'}{row}" for row in ROWS)]
    path = raw_files.lines(tmp_path / "a.csv", lines)
    found = read_raw(find_raw_files("csv", path, columns=NUMBERS))
    assert found.ratings.rows["user"].to_list() == ["7", "9"]
    with pytest.raises(InputError, match=r"has no column 'user_id', it has .*0, 1, 2"):
        find_raw_files("csv", path)
    shifted = {key: str(int(column) + 1) for key, column in NUMBERS.items()}
    line = r"its first line, ,?0,1,2,3,4, is data, or how pandas .* write names in its"
    with pytest.raises(InputError, match=line):
        find_raw_files("csv", path, columns=shifted)
    plain = raw_files.lines(tmp_path / "b.csv", ROWS)
    found = read_raw(find_raw_files("csv", plain, columns=shifted))
    assert found.ratings.rows["user"].to_list() == ["7", "9"]


def test_recbole_calls_a_time_date(tmp_path):
    raw_files.lines(tmp_path / "y.inter", ["user_id:token\titem_id:token\tdate:float"])
    raw_files.lines(tmp_path / "y.item", ["item_id:token\tname:token_seq"])
    found = find_raw_files("recbole", tmp_path / "y.inter")
    assert (found.columns.time, found.columns.title) == ("date", "name")


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "undefined", "a\0b"])
def test_encodings_that_do_not_exist(tmp_path, encoding):
    path = raw_files.lines(tmp_path / "a.csv", ["user_id,item_id,timestamp,title"])
    with pytest.raises(InputError, match="--encoding must be a name that Python knows"):
        find_raw_files("csv", path, encoding=encoding)


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("amazon-2018", "a.json", r"--format amazon-2018 needs --metadata"),
        ("movielens-100k", "a.json", r"u\.item does not exist: name the titles with"),
        ("movielens-100k", ".", r"is a folder without exactly one u\.data"),
        ("csv", ".", r"is a folder of several data sets \(.*\): name the file"),
        ("csv", "none.csv", r"none\.csv does not exist"),
        ("auto", "none.csv", r"none\.csv does not exist"),
        ("auto", "a.json", r"a\.json is empty"),
    ],
)
def test_files_that_are_not_there(tmp_path, name, path, message):
    (tmp_path / "a.json").touch()
    (tmp_path / "b.json").touch()
    with pytest.raises(InputError, match=message):
        find_raw_files(name, tmp_path / path)


def test_movielens_100k():
    """As published: 943 users, 1,682 items, 100,000 ratings."""
    files = fetch()
    raw = read_raw(find_raw_files("auto", files.interactions), max_bad=0.0)
    table, steps = tidy(raw.ratings.rows, raw.titles.rows, rated=True)
    assert [step[1:] for step in steps] == [(943, 1682, 100_000, 0)] * 4
    split = split_by_time(make_log(table), valid=5_000, test=5_000, min_history=3)
    # All but the first three ratings of each user are examples.
    assert sum(map(len, split)) == 100_000 - 3 * 943
