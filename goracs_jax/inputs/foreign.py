"""Files that are neither text nor a table, told by their first bytes."""

import re
from collections.abc import Mapping
from pathlib import Path

from goracs_jax.errors import InputError
from goracs_jax.inputs.streams import MARKS, PACKED, is_wide

ARCHIVES = {b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
PACKED_OTHERWISE = {
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
    b"\x1f\x9d": "compress",
    b"LZIP": "lzip",
    b"\x5d\x00\x00": "lzma, without the container of xz",
}
OTHERS = {
    b"FEA1": "a Feather file of version 1",
    b"PARE": "an encrypted Parquet file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"SQLite format 3\0": "a database of SQLite",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "an array of NumPy",
    b"\xd0\xcf\x11\xe0": "an Excel file of old",
    b"%PDF": "a PDF",
}
#: The first file in a zip archive that is a document, and where its name begins.
DOCUMENTS = {
    b"[Content_Types].xml": "an Excel file, or another of Office",
    b"_rels/": "an Excel file, or another of Office",
    b"docProps/": "an Excel file, or another of Office",
    b"mimetypeapplication/vnd.oasis": "a document of OpenOffice",
}
NAME = 30
PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
#: Characters that no text has: controls but for white space and escape; NUL is another
#: matter, of UTF-16.
CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]")


def refuse_foreign(path: Path, head: bytes, encoding: str) -> None:
    """Refuse what is no text, of what is no table.

    Args:
        path: The file.
        head: Its first bytes, unpacked; 512 are enough.
        encoding: That of text without a mark.

    Raises:
        InputError: It is no text, or a page of HTML or XML.
    """
    archive = _kind(ARCHIVES, head)
    if other := _kind(OTHERS, head) or (archive and _kind(DOCUMENTS, head[NAME:])):
        raise InputError(f"{path} is {other}: write it as JSONL, CSV or Parquet.")
    if archive or head[257:262] == b"ustar":
        raise InputError(
            f"{path} is a {archive or 'tar'} archive: unpack it and name the file in "
            "it."
        )
    if head.startswith(tuple(PACKED)):
        raise InputError(f"{path} is packed twice: unpack it.")
    if packed := _kind(PACKED_OTHERWISE, head):
        raise InputError(
            f"{path} is packed with {packed}: unpack it, or pack it with gzip or zstd."
        )
    if PAGE.match(head):
        raise InputError(
            f"{path} is a page of HTML or XML and no data: fetch the file itself."
        )
    if head.startswith(tuple(MARKS)) or is_wide(encoding):
        return
    if b"\0" in head[:8] or CONTROL.search(head[:64]):
        raise InputError(
            f"{path} is no text: write it as JSONL, CSV or Parquet, or UTF-16 with a "
            "mark at its start; pickled files stay unread."
        )


def _kind(kinds: Mapping[bytes, str], head: bytes) -> str:
    return next((kind for start, kind in kinds.items() if head.startswith(start)), "")
