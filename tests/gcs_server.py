"""A Google Cloud Storage on loopback: as much of its JSON protocol as it takes to read
objects in ranges, to list, to write and to delete them."""

import hashlib
import json
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from unittest.mock import patch
from urllib.parse import parse_qs, unquote, urlsplit

from loopback import Local, running

#: gcsfs reads it at import, and would look for gRPC, which no server of HTTP has.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
#: What is shown to those with an account, and to some of them.
PRIVATE, FORBIDDEN = "private", "forbidden"
Answer = tuple[int, bytes, dict[str, str]]


class Storage(Local):
    """Serves the folders of a root as buckets; `sent` counts bytes of objects.

    Where `cut` is set, uploads in parts get lost.
    """

    def __init__(self, root: Path):
        super().__init__(_Handler)
        self.root, self.sent, self.cut = root, 0, False
        self.uploads = dict[str, tuple[str, str]]()  # bucket and name, by number

    def handle_error(self, *_):
        """Say nothing: gcsfs asks twice, and hangs up on the slower answer."""


class _Handler(BaseHTTPRequestHandler):
    server: Storage
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        parts = [*map(unquote, url.path.strip("/").split("/"))]
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content, headers = self._answer(parts, query, body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_DELETE = do_GET

    def _answer(self, parts: list[str], query: dict[str, str], body: bytes) -> Answer:
        if parts[0] == "session":
            if self.server.cut:
                return _failed(400, "the upload is cut off")
            return self._received(*self.server.uploads[parts[1]], body)
        bucket, *rest = parts[parts.index("b") + 1 :]
        if bucket == PRIVATE:
            return _failed(401, "Anonymous caller does not have storage access")
        if bucket == FORBIDDEN:
            return _failed(403, "me@host does not have storage access")
        if not (self.server.root / bucket).is_dir():
            return _failed(404, "The specified bucket does not exist.")
        if parts[0] == "upload":
            return self._upload(bucket, query["uploadType"], body)
        if not rest:
            return _json({"kind": "storage#bucket", "name": bucket})
        if rest == ["o"]:
            return self._listing(bucket, query)
        return self._object(bucket, rest[1], whole=parts[0] == "download")

    def _object(self, bucket: str, key: str, whole: bool) -> Answer:
        file = self.server.root / bucket / key
        if not file.is_file():
            return _failed(404, f"No such object: {bucket}/{key}")
        if self.command == "DELETE":
            file.unlink()
            return 204, b"", {}
        if whole:
            return self._content(file.read_bytes())
        return _json(self._described(bucket, key))

    def _content(self, content: bytes) -> Answer:
        status = 200
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            status, content = 206, content[int(first) : int(last or len(content)) + 1]
        self.server.sent += len(content)
        return status, content, {}

    def _listing(self, bucket: str, query: dict[str, str]) -> Answer:
        prefix, by = query.get("prefix", ""), query.get("delimiter")
        folder = self.server.root / bucket
        files = (path for path in folder.rglob("*") if path.is_file())
        names = sorted(path.relative_to(folder).as_posix() for path in files)
        items, prefixes = [], {}
        for name in names:
            if not name.startswith(prefix):
                continue
            inner, *deeper = name.removeprefix(prefix).split(by or "\n")
            if deeper:
                prefixes[f"{prefix}{inner}{by}"] = True
            else:
                items.append(self._described(bucket, name))
        found = {"items": items[: int(query["maxResults"])], "prefixes": [*prefixes]}
        return _json({"kind": "storage#objects", **found})

    def _upload(self, bucket: str, kind: str, body: bytes) -> Answer:
        if kind == "resumable":
            number = f"number-{len(self.server.uploads)}"
            self.server.uploads[number] = bucket, json.loads(body)["name"]
            return 200, b"", {"Location": f"{self.server.url}/session/{number}"}
        # A part of JSON and the object, each below its headers, between lines of "--".
        end = body[: body.index(b"\n")]
        _, described, content = body.split(b"\n\n", 2)
        name = json.loads(described.partition(b"\n")[0])["name"]
        return self._received(bucket, name, content[: -len(b"\n" + end + b"--")])

    def _received(self, bucket: str, name: str, content: bytes) -> Answer:
        file = self.server.root / bucket / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return _json(self._described(bucket, name))

    def _described(self, bucket: str, name: str) -> dict:
        content = (self.server.root / bucket / name).read_bytes()
        mark = b64encode(hashlib.md5(content).digest()).decode()
        about = {"kind": "storage#object", "bucket": bucket, "name": name}
        return about | {"size": str(len(content)), "md5Hash": mark, "etag": mark}

    def log_message(self, *_):
        pass


def _json(value: object) -> Answer:
    return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}


def _failed(status: int, message: str) -> Answer:
    error = {"error": {"code": status, "message": message}}
    return status, json.dumps(error).encode(), {"Content-Type": "application/json"}


@contextmanager
def serving(root: Path) -> Iterator[Storage]:
    """Serve the folders of a root while the context lasts."""
    with running(Storage(root)) as storage:
        yield storage


@contextmanager
def reached(address: str) -> Iterator[None]:
    """Let gcsfs take a server in place of Google's, as nobody in particular."""
    import fsspec
    import gcsfs

    gcsfs.GCSFileSystem.clear_instance_cache()
    try:
        with (
            patch.dict(os.environ, {"STORAGE_EMULATOR_HOST": address}),
            patch.dict(fsspec.config.conf, {"gs": {"token": "anon"}}),
        ):
            yield
    finally:
        gcsfs.GCSFileSystem.clear_instance_cache()
