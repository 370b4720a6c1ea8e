"""Coresets as Parquet and ArrayRecord, read back by other libraries."""

import importlib.util
import json

import polars as pl
import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)

from goracs_jax.data.coreset_files import FORMATS, check_formats
from goracs_jax.data.tf_examples import tf_example
from goracs_jax.errors import InputError

CHAT = [{"role": "user", "content": "Größe?"}, {"role": "assistant", "content": "1"}]
RECORDS = [
    {"prompt": "q", "completion": "a\n", "id": 7, "tags": ["x", "y"], "messages": CHAT},
    {"prompt": "", "completion": "é", "score": -1.5, "kept": None, "ok": True},
    {"prompt": "r", "completion": "b", "ids": [-1, 2**62], "id": 2**70, "tags": []},
]
#: The definition of TensorFlow, with its map and its oneof.
SCHEMA = """
name: "e.proto" package: "tensorflow" syntax: "proto3"
message_type { name: "Example" field { name: "features" number: 1
  type: TYPE_MESSAGE type_name: ".tensorflow.Features" } }
message_type { name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED
    type: TYPE_MESSAGE type_name: ".tensorflow.Features.FeatureEntry" }
  nested_type { name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2
      type: TYPE_MESSAGE type_name: ".tensorflow.Feature" } } }
message_type { name: "Feature" oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 oneof_index: 0
    type: TYPE_MESSAGE type_name: ".tensorflow.BytesList" }
  field { name: "float_list" number: 2 oneof_index: 0
    type: TYPE_MESSAGE type_name: ".tensorflow.FloatList" }
  field { name: "int64_list" number: 3 oneof_index: 0
    type: TYPE_MESSAGE type_name: ".tensorflow.Int64List" } }
message_type { name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "FloatList" field { name: "value" number: 1
  label: LABEL_REPEATED type: TYPE_FLOAT options { packed: true } } }
message_type { name: "Int64List" field { name: "value" number: 1
  label: LABEL_REPEATED type: TYPE_INT64 options { packed: true } } }
"""


@pytest.fixture(scope="module")
def parsed():
    file = text_format.Parse(SCHEMA, descriptor_pb2.FileDescriptorProto())
    found = descriptor_pool.DescriptorPool().Add(file)
    kind = message_factory.GetMessageClass(found.message_types_by_name["Example"])

    def parse(data):
        features = kind.FromString(data).features.feature
        one = lambda feature: list(getattr(feature, feature.WhichOneof("kind")).value)
        return {name: one(feature) for name, feature in features.items()}

    return parse


def test_an_example_is_what_tensorflow_reads(parsed):
    one, two, three = (parsed(tf_example(record)) for record in RECORDS)
    assert {name: one[name] for name in ("prompt", "completion", "id", "tags")} == {
        "prompt": [b"q"],
        "completion": [b"a\n"],
        "id": [7],
        "tags": [b"x", b"y"],
    }
    assert json.loads(one["messages"][0]) == CHAT
    assert two == {
        "prompt": [b""],
        "completion": ["é".encode()],
        "score": [-1.5],
        "ok": [1],
    }
    assert three["ids"] == [-1, 2**62]
    assert (json.loads(three["id"][0]), three["tags"]) == (2**70, [b"[]"])


def test_array_record_is_read_in_any_order(parsed, tmp_path):
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    path = tmp_path / "coreset.array_record"
    FORMATS["array-record"].write(path, RECORDS)
    with ArrayRecordDataSource(str(path)) as source:
        assert len(source) == len(RECORDS)
        found = [parsed(source[i])["completion"][0].decode() for i in (2, 0, 1)]
    assert found == ["b", "a\n", "é"]


def test_parquet_has_one_row_for_each_record(tmp_path):
    path = tmp_path / "coreset.parquet"
    records = [{k: v for k, v in r.items() if k != "id"} for r in RECORDS]
    check_formats(["parquet"], records)
    FORMATS["parquet"].write(path, records)
    keys = dict.fromkeys(key for record in records for key in record)
    expected = [dict.fromkeys(keys) | record for record in records]
    assert pl.read_parquet(path).to_dicts() == expected


@pytest.mark.parametrize(
    ("name", "records", "named"),
    [
        ("parquet", [{"a": 1}, {"a": "x"}], "a key has values of one type"),
        ("parquet", [{"a": [1]}, {"a": {"b": 1}}], "a key has values of one type"),
        ("parquet", [{"a": {}}], "a key has values of one type"),
        ("tfrecord", [], "must be of parquet and array-record, got 'tfrecord'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name, records, named):
    with pytest.raises(InputError, match=f"--coreset-formats .*{named}"):
        check_formats([name], records)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'goracs_jax\[array-record\]'"):
        check_formats(["array-record"], RECORDS)
