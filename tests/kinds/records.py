"""Records: files and values that `read_examples` takes."""

import bz2
import gzip
import json
import lzma
import math
import pickle
import sys
import zipfile

import polars as pl

from goracs_jax.data.examples import read_examples
from kinds import Group, Kind

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RECORDS = [
    {"instruction": "Größe?", "input": "1\n2", "output": '3, "4"', "id": 7},
    {"instruction": "Add.", "input": "", "output": "5", "id": 8},
    {"instruction": "Sum up.", "input": "6", "output": "7", "id": 9},
]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)
COLUMNS = {key: [record[key] for record in RECORDS] for key in RECORDS[0]}
FRAME = pl.DataFrame(RECORDS)


def read(source):
    return [example.record for example in read_examples(source)]


def file(name, content):
    """A kind whose file has this content."""

    def make(folder):
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(raw)
        return folder / name

    return make


def dumped(value):
    return file("a.json", json.dumps(value, indent=2))


def written(name, write):
    def make(folder):
        write(folder / name)
        return folder / name

    return make


def separated(by):
    rows = [["instruction", "input", "output"]]
    rows += [[record[key] for key in rows[0]] for record in RECORDS]
    quoted = lambda text: '"' + text.replace('"', '""') + '"'
    return "".join(by.join(map(quoted, row)) + "\r\n" for row in rows)


def with_input(value):
    records = [RECORDS[0], RECORDS[1] | {"input": value}, RECORDS[2]]
    return file("a.jsonl", "".join(json.dumps(record) + "\n" for record in records))


def shards(folder):
    """Three shards, of which the tenth comes last."""
    for number, record in zip((1, 2, 10), RECORDS, strict=True):
        (folder / f"part-{number}.jsonl").write_text(json.dumps(record) + "\n")
    return folder


def saved_dataset(folder):
    """What `Dataset.save_to_disk` writes, in two files."""
    names = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    for name, part in zip(names, (FRAME[:1], FRAME[1:]), strict=True):
        part.write_ipc_stream(folder / name)
    state = {"_data_files": [{"filename": name} for name in names]}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def saved_splits(folder):
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return folder


def zipped(folder):
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.jsonl", LINES)
    return folder / "a.zip"


def excel(folder):
    with zipfile.ZipFile(folder / "a.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    return folder / "a.xlsx"


def really_saved(folder):
    import datasets

    datasets.Dataset.from_list(RECORDS).save_to_disk(folder / "saved")
    return folder / "saved"


def dataset(folder):
    """Its own choice of rows is kept."""
    import datasets

    turned = datasets.Dataset.from_list(RECORDS[::-1])
    return turned.select([2, 1, 0])


def pandas_frame(folder):
    import pandas

    return pandas.DataFrame(RECORDS).astype({"input": object}).replace({"": math.nan})


def arrow_table(folder):
    import pyarrow

    return pyarrow.Table.from_pylist(RECORDS)


TEXTS = [{k: v for k, v in record.items() if k != "id"} for record in RECORDS]
PANDAS = {key: dict(enumerate(column)) for key, column in COLUMNS.items()}
SPLIT = {"columns": [*COLUMNS], "index": [0, 1, 2]}
SPLIT["data"] = [[*record.values()] for record in RECORDS]
CUT = LINES[:-9]
ANSWERED = [
    {"row_idx": i, "row": r, "truncated_cells": []} for i, r in enumerate(RECORDS)
]
VIEWER = {"features": [{"name": key} for key in COLUMNS], "rows": ANSWERED}
CATEGORIES = FRAME.cast({"output": pl.Categorical})

GROUP = Group(
    "Texts: `--train`, `--valid`, `--data`, `--test`; `read_examples` in Python",
    read,
    RECORDS,
    (
        Kind("JSON, a list of records", dumped(RECORDS)),
        Kind("JSONL, one record on each line", file("a.jsonl", LINES)),
        Kind("JSON, the list inside an object", dumped({"v": 1, "data": RECORDS})),
        Kind("JSON, the same on one line", file("a", json.dumps({"rows": RECORDS}))),
        Kind("JSON, columns", dumped(COLUMNS)),
        Kind("JSON, columns inside an object", dumped({"data": COLUMNS})),
        Kind(
            "JSON, the only split inside an object",
            dumped({"data": {"train": RECORDS}}),
        ),
        Kind("JSON, as the hub's viewer of data sets answers", dumped(VIEWER)),
        Kind('JSON of pandas, `orient="columns"`', dumped(PANDAS)),
        Kind('JSON of pandas, `orient="index"`', dumped(dict(enumerate(RECORDS)))),
        Kind('JSON of pandas, `orient="split"`', dumped(SPLIT)),
        Kind(
            "JSON, records over several lines that follow each other",
            file("a", "\n".join(json.dumps(r, indent=1) for r in RECORDS)),
        ),
        Kind(
            "JSON, several lists",
            dumped({"train": RECORDS, "test": RECORDS}),
            line=r"several lists of records \(train, test\): write a file for each",
        ),
        Kind(
            "CSV, with line breaks inside quotes", file("a.csv", separated(",")), TEXTS
        ),
        Kind(
            "CSV whose cells begin as JSON does",
            file("a.csv", 'instruction,output\n"[INST] a","{b}"\n'),
            [{"instruction": "[INST] a", "output": "{b}"}],
        ),
        Kind(
            'CSV with `\\"` for marks inside quotes, as Spark writes',
            file("a.csv", 'instruction,output\n"\\"a\\", b",c\\d\n'),
            [{"instruction": '"a", b', "output": "c\\d"}],
        ),
        Kind(
            "CSV with spaces between columns",
            file("a.txt", "instruction output\na b\n"),
            line=r"is neither JSON nor a table: 'instruction output', its first line",
        ),
        Kind("CSV with semicolons", file("a.csv", separated(";")), TEXTS),
        Kind("CSV with tabs", file("a.tsv", separated("\t")), TEXTS),
        Kind("Parquet", written("a.parquet", FRAME.write_parquet)),
        Kind(
            "Parquet, categories",
            written("a.parquet", CATEGORIES.write_parquet),
        ),
        Kind("Arrow file (Feather, IPC)", written("a.arrow", FRAME.write_ipc)),
        Kind("Arrow stream", written("a.arrow", FRAME.write_ipc_stream)),
        Kind("A folder of shards", shards),
        Kind("A pattern of shards", lambda f: shards(f) / "part-*.jsonl"),
        Kind("A dataset saved by `save_to_disk`", saved_dataset),
        Kind("The same, written by `datasets`", really_saved, needs="datasets"),
        Kind(
            "Several splits saved by `save_to_disk`",
            saved_splits,
            line=r"has several splits: name one of .*/train, .*/test",
        ),
        Kind("gzip", file("a.jsonl.gz", gzip.compress(LINES.encode()))),
        Kind("bzip2", file("a.jsonl.bz2", bz2.compress(LINES.encode()))),
        Kind("xz", file("a.jsonl.xz", lzma.compress(LINES.encode()))),
        Kind("zstd, under any name", file("a", zstd.compress(LINES.encode()))),
        Kind(
            "A packed file that is cut off",
            file("a.gz", gzip.compress(LINES.encode())[:-9]),
            line=r"is damaged or cut off \(.*\): fetch it again",
        ),
        Kind(
            "zstd, as pzstd writes it",
            file("a", b"\x50\x2a\x4d\x18\4\0\0\0size" + zstd.compress(LINES.encode())),
        ),
        Kind(
            "lz4, and other ways to pack",
            file("a.lz4", b"\x04\x22\x4d\x18" + bytes(20)),
            line=r"is packed with lz4: unpack it, or pack it with gzip or zstd",
        ),
        Kind(
            "Excel",
            excel,
            line=r"is an Excel file, or another of Office: write it as JSONL, CSV or",
        ),
        Kind("A zip archive", zipped, line=r"is a zip archive: unpack it"),
        Kind("UTF-8 with a mark", file("a.jsonl", LINES.encode("utf-8-sig"))),
        Kind("UTF-16 with a mark", file("a.jsonl", LINES.encode("utf-16"))),
        Kind(
            "UTF-16 with a mark, CSV", file("a", separated(",").encode("utf-16")), TEXTS
        ),
        Kind(
            "UTF-16 without a mark",
            file("a.jsonl", LINES.encode("utf-16-le")),
            line=r"is no text: write it as JSONL, .* or UTF-16 with a mark at its",
        ),
        Kind(
            "Latin-1",
            file("a.jsonl", '{"instruction": "Größe?"}'.encode("latin-1")),
            line=r"a\.jsonl:1: byte 0xf6 is not UTF-8: convert the file",
        ),
        Kind("`input` null", with_input(None)),
        Kind("`input` NaN", with_input(math.nan)),
        Kind(
            "A key that stands twice in an object",
            file("a.jsonl", '{"instruction": "i", "output": "o", "output": "p"}'),
            line=r"a\.jsonl:1: cannot be read \(the key 'output' stands twice",
        ),
        Kind(
            "A last line that is cut off",
            file("a.jsonl", CUT),
            line=r"a\.jsonl:3: not valid JSON .*the last line is cut off",
        ),
        Kind(
            "Pickles",
            file("a.pkl", pickle.dumps(RECORDS)),
            line=r"pickled files stay unread",
        ),
        Kind("In Python: a list of dictionaries", lambda folder: RECORDS),
        Kind("In Python: a frame of polars", lambda folder: FRAME),
        Kind("In Python: a frame of pandas", pandas_frame, needs="pandas"),
        Kind("In Python: a table of PyArrow", arrow_table, needs="pyarrow"),
        Kind("In Python: a `datasets.Dataset`", dataset, needs="datasets"),
    ),
)
