"""Files of records that are easily taken for others, and those that are none."""

import codecs
import gzip
import json
import lzma
import os
import tarfile
from datetime import timedelta

import polars as pl
import pytest

from goracs_jax.data.examples import read_examples, read_records
from goracs_jax.data.skipped import Skipped
from goracs_jax.errors import InputError
from goracs_jax.inputs.records import How, names_of, records_of

ONE = {"instruction": "i", "output": "o"}
TWO = {"instruction": "j", "output": "p"}
LINES = f"{json.dumps(ONE)}\n{json.dumps(TWO)}\n"
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHARED = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path):
    return [example.record for example in read_records(path)]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "record",
    [
        {"messages": TURNS},
        {"conversations": SHARED},
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": TURNS[1:]},
    ],
)
def test_the_turns_of_a_single_chat_are_no_records(tmp_path, record, indent):
    path = written(tmp_path / "a.json", json.dumps(record, indent=indent))
    assert read(path) == [record]
    assert read(written(path, json.dumps([record, record], indent=indent))) == (
        [record, record]
    )


def test_lines_of_white_space_are_blank(tmp_path):
    text = f" \n\t\n{LINES}  \n".replace("}\n", "}\n \t\r\n")
    found = read_records(written(tmp_path / "a.jsonl", text))
    assert [example.place[-2:] for example in found] == [":3", ":5"]
    table = written(tmp_path / "a.csv", "  \ninstruction,output\n\t\ni,o\n   \n")
    assert read(table) == [ONE]


NO_DATA = {
    "SQLite": (b"SQLite format 3\0\x10\0\1\1", r"is a database of SQLite: write it"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), r"is an HDF5 file: write it as JSONL"),
    "Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", r"is an Excel file of old"),
    "Avro": (b"Obj\x01\x04\x16avro.schema", r"is an Avro file: write it as JSONL"),
    "PDF": (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", r"is a PDF: write it as JSONL"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", r"is a 7z archive: unpack it"),
    "NumPy": (b"\x93NUMPY\x01\0", r"is an array of NumPy: write it as JSONL"),
    "a locked Parquet": (b"PARE" + bytes(9), r"is an encrypted Parquet file"),
    "OpenOffice": (
        b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument.text",
        r"is a document of OpenOffice: write it as JSONL",
    ),
    "lzma": (
        lzma.compress(b"{}", lzma.FORMAT_ALONE),
        r"is packed with lzma, without the container of xz: unpack it, or pack it",
    ),
    "a note for Excel": (
        "sep=;\ninstruction;output\ni;o\n",
        r"begins with a note for Excel, 'sep=;': take out that line",
    ),
    "prose": ("Once upon\na time\n", r"is neither JSON nor a table: 'Once upon', its"),
    "a list of YAML": ("- a: 1\n  b: 2\n", r"is neither JSON nor a table: '- a: 1'"),
    "packed twice": (gzip.compress(gzip.compress(b"{}")), r"is packed twice: unpack"),
    "Markdown": (
        "|instruction|output|\n|:--|---|\n|i|o|\n",
        r"is a table that is drawn",
    ),
    "a terminal": (" a | b \n---+---\n 1 | 2 \n", r"is a table that is drawn"),
    "bytes": (b"\x05\x06" + bytes(9), r"is no text"),
    "a list of JSON": ("[{},]", r"correct it, or write one record on each line"),
    "a page": ("\n<!DOCTYPE html>\n<p>404</p>", r"is a page of HTML or XML"),
    "XML": ('<?xml version="1.0"?>\n<a/>', r"is a page of HTML or XML"),
    "Git LFS": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        r"is a pointer of Git LFS .*: fetch it with git lfs pull",
    ),
    "CR alone": ("a,b\r1,2\r", r"the first line ends with CR alone"),
    "a long header": ("x" * 2**21 + ",y\n1,2", r"the first line cannot be read"),
    "a name twice": ("a,b,b\n1,2,3", r":1: .*two columns have the name 'b'"),
    "one of several is deep": (
        '{\n"a": 1\n}\n{\n"a": ' + "[" * 10**5,
        r"not valid JSON \(maximum recursion depth",
    ),
    "one of several has digits": (
        '{\n"a": 1\n}\n{\n"a": ' + "9" * 5000 + "\n}",
        r"not valid JSON \(Exceeds the limit .* digits",
    ),
    "one line": (
        LINES.replace("\n", ""),
        r"\(Extra data\): JSONL needs one complete record on every line",
    ),
}


@pytest.mark.parametrize("name", NO_DATA)
def test_what_is_no_data(tmp_path, name):
    content, message = NO_DATA[name]
    with pytest.raises(InputError, match=message):
        read_examples(written(tmp_path / "a", content))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_archives(tmp_path, mode):
    with tarfile.open(tmp_path / "a", mode) as archive:
        archive.add(written(tmp_path / "b", LINES))
    with pytest.raises(InputError, match="is a tar archive: unpack it"):
        read_examples(tmp_path / "a")


def test_a_name_that_is_too_long_for_a_file():
    with pytest.raises(InputError, match="cannot be opened"):
        read_examples("x" * 300)


@pytest.mark.parametrize("encoding", ["utf-16-le", "U16", "utf-32-be", "cp037"])
@pytest.mark.parametrize("text", [LINES, "instruction,output\ni,o\nj,p\n"])
def test_encodings_whose_line_feed_is_not_that_of_ascii(tmp_path, encoding, text):
    path = written(tmp_path / "a", text.encode(encoding))
    found = records_of(path, How(encoding=encoding))
    assert [parsed.fields for _, parsed in found] == [ONE, TWO]


def test_a_mark_is_no_part_of_the_text(tmp_path):
    path = written(tmp_path / "a", codecs.BOM_UTF8 + b"instruction,output\ni,o\n")
    found = records_of(path, How(encoding="utf-8-sig"))
    assert [parsed.fields for _, parsed in found] == [ONE]


def test_durations_and_bytes_are_refused_where_they_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {"t": timedelta(1), "b": b"x"}
    pl.DataFrame([ONE | columns]).write_parquet(path)
    assert names_of(path) == [*ONE, *columns]
    (found,) = records_of(path, How(columns=tuple(ONE)))
    assert found[1].fields == ONE
    with pytest.raises(InputError, match="column 't' has the type Duration"):
        read(path)


def test_the_index_of_pandas_is_no_data(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "a.parquet"
    pandas.DataFrame([ONE, TWO], index=[7, 3]).to_parquet(path)
    assert "__index_level_0__" in pl.read_parquet_schema(path)
    assert read(path) == [ONE, TWO]
    frame = pandas.DataFrame(
        [["i", "o", "p"]], columns=["instruction", *["output"] * 2]
    )
    with pytest.raises(InputError, match="two columns have the same name"):
        read_records(frame)


def test_one_list_of_records_beside_others(tmp_path):
    text = json.dumps({"errors": [], "rows": [ONE, TWO], "features": ["a"]})
    assert read(written(tmp_path / "a.json", text)) == [ONE, TWO]
    text = json.dumps({"a": [1, 2], "b": [3]})
    with pytest.raises(InputError, match="the columns have different lengths"):
        read(written(tmp_path / "a.json", text))


def test_cells_that_begin_as_json_does(tmp_path):
    rows = ['[INST] hi [/INST],"[1, 2]"', "{name},o"]
    text = "\n".join(["instruction,output", *rows])
    assert read(written(tmp_path / "a.csv", text)) == [
        {"instruction": "[INST] hi [/INST]", "output": "[1, 2]"},
        {"instruction": "{name}", "output": "o"},
    ]
    # Below a line that is no JSON, an object is a record all the same.
    path = written(tmp_path / "a.jsonl", f"cut off, here\n{LINES}")
    skipped = Skipped()
    assert len(read_examples(path, skipped)) == 2
    assert skipped.rows == [0]


TWICE = '{"instruction": "i", "output": "o", "output": "p"}'


def test_a_key_that_stands_twice_is_refused(tmp_path):
    line = r"key 'output' stands twice in an object"
    path = written(tmp_path / "a.jsonl", f"{json.dumps(ONE)}\n{TWICE}\n")
    with pytest.raises(InputError, match=rf"a\.jsonl:2: cannot be read .*{line}"):
        read(path)
    skipped = Skipped()
    assert len(read_examples(path, skipped)) == 1
    first = written(tmp_path / "b.jsonl", f"{TWICE}\n{json.dumps(ONE)}\n")
    assert len(read_examples(first, Skipped())) == 1
    nested = f'[{{"instruction": "i", "output": "o", "x": {TWICE}}}]'
    several = f"{json.dumps(ONE, indent=1)}\n{TWICE}"
    for text in (f"[{TWICE}]", nested, several):
        with pytest.raises(InputError, match=line):
            read(written(tmp_path / "a.json", text))


def test_a_table_whose_fields_are_called_like_types(tmp_path):
    record = ONE | {"x": {"Date": "a", "Object": ["b"]}, "kind": "Binary"}
    frame = pl.DataFrame([record]).with_columns(
        pl.col("kind").cast(pl.Enum(["Binary", "Duration"]))
    )
    frame.write_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [record]
    dated = pl.DataFrame([ONE | {"x": {"y": [timedelta(1)]}}])
    with pytest.raises(InputError, match="column 'x' has the type Struct"):
        read_records(dated)


@pytest.mark.parametrize(
    "state",
    ["[]", "nothing", '{"_data_files": ["a.arrow"]}', '{"_data_files": [{"a": 1}]}'],
)
def test_a_saved_dataset_whose_record_is_none(tmp_path, state):
    written(tmp_path / "state.json", state)
    with pytest.raises(InputError, match=r"state\.json .*: save the dataset again"):
        read(tmp_path)
    (tmp_path / "state.json").unlink()
    written(tmp_path / "dataset_dict.json", state.replace("_data_files", "splits"))
    with pytest.raises(InputError, match=r"save the dataset again|has several splits"):
        read(tmp_path)


def test_a_saved_dataset_of_thousands_of_files(tmp_path):
    names = [f"data-{i:05d}-of-05000.arrow" for i in range(5000)]
    state = {"_data_files": [{"filename": name} for name in names]}
    written(tmp_path / "state.json", json.dumps(state))
    pl.DataFrame([ONE]).write_ipc_stream(tmp_path / names[0])
    with pytest.raises(InputError, match=r"names data-00001-of-05000.arrow, which"):
        read(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        [f"x-{i}-of-{n}.jsonl" for n in (2, 3) for i in range(n)],
        ["x-0-of-2.jsonl", "x-00-of-2.jsonl"],
    ],
)
def test_shards_that_are_there_twice(tmp_path, names):
    for name in names:
        written(tmp_path / name, LINES)
    with pytest.raises(InputError, match="shards of several data sets, or of several"):
        read(tmp_path)


def test_a_shard_that_is_no_file_is_not_left_out(tmp_path):
    written(tmp_path / "x-0.jsonl", LINES)
    (tmp_path / "x-1.jsonl").symlink_to("gone")
    for path in (tmp_path, tmp_path / "x-*.jsonl"):
        with pytest.raises(InputError, match=r"x-1\.jsonl does not exist"):
            read(path)
    (tmp_path / "x-1.jsonl").unlink()
    os.mkfifo(tmp_path / "x-1.jsonl")
    with pytest.raises(InputError, match=r"x-1\.jsonl: a device or a pipe"):
        read(tmp_path)


def test_a_folder_of_folders(tmp_path):
    for name in ("year=2001", "year=2000"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "part-0.jsonl", LINES)
    with pytest.raises(InputError, match=r"without files of data: .* as .*=2000\."):
        read(tmp_path)
    assert read(tmp_path / "year=2001") == [ONE, TWO]


@pytest.mark.parametrize("value", [7, None, {"instruction": ["i"]}])
def test_a_value_without_records(value):
    with pytest.raises(InputError, match=r"records must be a path, a list of"):
        read_records(value)


def test_a_dataset_with_a_transform():
    datasets = pytest.importorskip("datasets")
    found = datasets.Dataset.from_list([ONE]).with_transform(lambda rows: rows)
    with pytest.raises(InputError, match=r"has a transform, .* give dataset\.map"):
        read_records(found)


def test_an_encoding_that_is_not_that_of_the_file(tmp_path):
    path = written(tmp_path / "a.csv", "instruction,output\ni,o\n")
    with pytest.raises(InputError, match=r"it is not utf-16: UTF-16 stream does not"):
        list(records_of(path, How(encoding="utf-16")))
