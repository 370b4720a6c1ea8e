"""Records as tf.train.Example, the form in which trainers of JAX read ArrayRecord.

An Example maps names to lists of bytes, of floats of 32 bits or of integers of 64 bits.
Its definition is that of TensorFlow (tensorflow/core/example), of which nothing else is
needed.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

#: On the wire, a map is a list of entries with key and value.
_SCHEMA = """
name: "goracs_jax/example.proto" package: "goracs_jax" syntax: "proto3"
message_type { name: "Example" field {
  name: "features" number: 1 type: TYPE_MESSAGE type_name: "Features"} }
message_type { name: "Features" field {
  name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Entry"
} }
message_type { name: "Entry"
  field { name: "key" number: 1 type: TYPE_STRING }
  field { name: "value" number: 2 type: TYPE_MESSAGE type_name: "Feature" } }
message_type { name: "Feature"
  field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: "Bytes" }
  field { name: "float_list" number: 2 type: TYPE_MESSAGE type_name: "Floats" }
  field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: "Integers" } }
message_type { name: "Bytes" field {
  name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "Floats" field {
  name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT } }
message_type { name: "Integers" field {
  name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
"""


def write_array_record(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write an ArrayRecord file, whose records can be read in any order.

    Args:
        path: The file.
        records: The records.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    # One record a group, as Grain asks for where records are read in any order.
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(tf_example(record))
    writer.close()


def tf_example(record: Mapping[str, Any]) -> bytes:
    r"""Encode a record as tf.train.Example.

    Texts are bytes in UTF-8, true and false are 1 and 0, and numbers that are not whole
    are rounded to float32. A list of one of these is such a list. All else, such as
    messages and integers of more than 64 bits, is JSON in bytes; null is left out.

    Args:
        record: A record of JSON.

    >>> tf_example({"a": 1})
    b'\n\x0c\n\n\n\x01a\x12\x05\x1a\x03\n\x01\x01'
    """
    example = _example()
    for name, value in record.items():
        if value is not None:
            entry = example.features.feature.add(key=name)
            kind, values = _values(value)
            getattr(entry.value, kind).value.extend(values)
    return example.SerializeToString()


def _values(value: Any) -> tuple[str, list[Any]]:
    """Return the kind of list that a value becomes, and its members."""
    members: list[Any] = value if isinstance(value, list) and value else [value]
    of = lambda *kinds: all(isinstance(member, kinds) for member in members)
    if of(str):
        return "bytes_list", [member.encode() for member in members]
    if of(int) and all(-(2**63) <= member < 2**63 for member in members):
        return "int64_list", [*map(int, members)]
    if of(int, float) and not of(int):
        return "float_list", members
    return "bytes_list", [json.dumps(value, ensure_ascii=False).encode()]


def _example() -> Any:
    """Make an empty Example."""
    return _kind()()


@cache
def _kind() -> Any:
    from google.protobuf import (
        descriptor_pb2,
        descriptor_pool,
        message_factory,
        text_format,
    )

    file = text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto())
    found: Any = descriptor_pool.DescriptorPool().Add(file)
    return message_factory.GetMessageClass(found.message_types_by_name["Example"])
