"""Open a file as a stream of bytes, unpacked, and cut it into numbered lines."""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import sys
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from goracs_jax.errors import InputError, one_line
from goracs_jax.files import POINTER, existing_file

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: The first bytes of packed files, and what unpacks them.
PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": zstd.ZstdFile,
    b"\x50\x2a\x4d\x18": zstd.ZstdFile,  # a frame to skip, as pzstd begins
}
#: The ends of their names.
SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
#: Marks at the start of a text, and the encoding that each tells; the longest first.
MARKS = {
    BOM_UTF32_LE: "utf-32",
    BOM_UTF32_BE: "utf-32",
    BOM_UTF16_LE: "utf-16",
    BOM_UTF16_BE: "utf-16",
    BOM_UTF8: "utf-8-sig",
}
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstd.ZstdError)


class Opened(NamedTuple):
    """An open file: its unpacked bytes, and the MiB of the file that were read."""

    stream: io.BufferedReader
    mib: Callable[[], float]


class Lines(NamedTuple):
    """The lines of a text that are not blank, with their numbers from 1."""

    numbered: Iterator[tuple[int, bytes]]
    encoding: str  # of these bytes
    fallback: str = ""  # that of lines which cannot be decoded so

    def decode(self, line: bytes) -> str:
        """Decode a line."""
        try:
            return line.decode(self.encoding)
        except UnicodeDecodeError:
            if not self.fallback:
                raise
            return line.decode(self.fallback)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a file, packed with gzip, bzip2, xz or zstd or not at all.

    Raises:
        InputError: It does not exist, is a folder, is damaged, or stands for a file
            that was not fetched.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a"
    >>> _ = path.write_bytes(gzip.compress(b"text"))
    >>> with opened(path) as file:
    ...     file.stream.read()
    b'text'
    """
    try:
        file = existing_file(path).open("rb")
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened ({error.strerror}): check path and permissions."
        ) from None
    with file:
        head = file.read(len(POINTER))
        file.seek(0)
        if head == POINTER:
            raise InputError(
                f"{path} is a pointer of Git LFS in place of the file: fetch it with "
                "git lfs pull."
            )
        unpack = next((f for m, f in PACKED.items() if head.startswith(m)), None)
        stream = io.BufferedReader(unpack(file)) if unpack else file  # type: ignore
        try:
            yield Opened(stream, lambda: file.tell() / 2**20)
        except (*DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of another file; that of a damaged one has no number
            raise InputError(
                f"{path} is damaged or cut off ({one_line(error)}): fetch it again."
            ) from None


def is_packed(path: Path) -> bool:
    """Whether a file is packed as a whole."""
    with path.open("rb") as file:
        return file.read(6).startswith(tuple(PACKED))


def unpacked(name: str) -> str:
    """Return the name of a file without that of its packing.

    >>> unpacked("a.jsonl.gz")
    'a.jsonl'
    """
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def head_of(path: Path, size: int = 64) -> bytes:
    """Return the first unpacked bytes of a file."""
    with opened(path) as file:
        return file.stream.read(size)


def lines_of(
    stream: io.BufferedReader, encoding: str = "utf-8", fallback: str = ""
) -> Lines:
    r"""Cut a text into lines that are not blank, without the characters that end them.

    Only line feeds end a line: a text may contain other separators.

    Args:
        stream: The bytes of the text.
        encoding: Its encoding, unless a mark at its start tells another.
        fallback: The encoding of lines that cannot be decoded so.

    >>> text = io.BufferedReader(io.BytesIO("\n\u00e9\r\n".encode("utf-16")))
    >>> [(number, line.decode()) for number, line in lines_of(text).numbered]
    [(2, 'é')]
    """
    start = stream.peek(4)[:4]
    mark = next((mark for mark in MARKS if start.startswith(mark)), None)
    encoding = MARKS[mark] if mark else encoding
    if encoding == "utf-8-sig":
        stream.read(3)
        return Lines(_numbered(stream), "utf-8")
    if is_wide(encoding):
        return Lines(_numbered(_transcoded(stream, encoding)), "utf-8")
    return Lines(_numbered(stream), encoding, fallback)


def is_wide(encoding: str) -> bool:
    """Whether a line feed is another byte than in ASCII, or more than one.

    >>> is_wide("utf-16-le"), is_wide("latin-1"), is_wide("cp037")
    (True, False, True)
    """
    return "\n".encode(encoding) != b"\n"


def text_of(
    stream: io.BufferedReader, encoding: str = "utf-8", fallback: str = ""
) -> str:
    """Read a whole text; see `lines_of`.

    Raises:
        UnicodeDecodeError: It has another encoding.
    """
    whole = stream.read()
    mark = next((mark for mark in MARKS if whole.startswith(mark)), None)
    return Lines(iter(()), MARKS[mark] if mark else encoding, fallback).decode(whole)


def _transcoded(stream: io.BufferedReader, encoding: str) -> Iterator[bytes]:
    """Yield the lines of a text in UTF-8."""
    decoder, rest = codecs.getincrementaldecoder(encoding)(), ""
    try:
        while piece := stream.read(1 << 16):
            *lines, rest = (rest + decoder.decode(piece)).split("\n")
            yield from (line.encode() for line in lines)
        yield (rest + decoder.decode(b"", final=True)).encode()
    except UnicodeError as error:
        raise EOFError(f"it is not {encoding}: {one_line(error)}") from None


def _numbered(lines: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(lines, 1):
        if text := line.rstrip(b"\r\n"):
            yield number, text
