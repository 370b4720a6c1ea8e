"""A hub of Hugging Face on loopback: as much of its protocol as a fetch needs."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAIN, OLD = "a" * 40, "b" * 40
GATED, PRIVATE = "org/gated", "org/private"


class Hub(ThreadingHTTPServer):
    """Serves folders by name and commit; `asked` has the paths of all requests."""

    daemon_threads = True

    def __init__(self, models: dict[str, dict[str, Path]]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models, self.asked = models, list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.asked.append(path)
        parts = path.split("/")
        is_api = parts[:2] == ["api", "models"]
        name, rest = "/".join(parts[2:4] if is_api else parts[:2]), parts[4:]
        rest = rest if is_api else parts[2:]
        if name == PRIVATE or name not in self.server.models:
            return self._fail(401, "RepoNotFound")
        commits = self.server.models[name]
        revision = rest[1] if len(rest) > 1 else "main"
        commit = {"main": MAIN, "v1": OLD}.get(revision, revision)
        if commit not in commits:
            return self._fail(404, "RevisionNotFound")
        folder = commits[commit]
        if is_api and rest[:1] == ["tree"]:
            return self._send(json.dumps([*map(_entry, _files(folder))]).encode())
        if is_api:
            found = {"id": name, "sha": commit, "siblings": [], "tags": []}
            return self._send(json.dumps(found).encode())
        if name == GATED:
            return self._fail(403, "GatedRepo")
        file = folder / "/".join(rest[2:])
        if not file.is_file():
            return self._fail(404, "EntryNotFound")
        content = file.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        return self._send(content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    do_HEAD = do_GET

    def _send(self, content: bytes, headers: dict[str, str] | None = None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _fail(self, status: int, code: str):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def _files(folder: Path) -> list[tuple[str, Path]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path) for path in files]


def _entry(file: tuple[str, Path]) -> dict:
    name, path = file
    content = path.read_bytes()
    oid = hashlib.sha256(content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}


@contextmanager
def serving(models: dict[str, dict[str, Path]]) -> Iterator[Hub]:
    """Serve models while the context lasts."""
    with Hub(models) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()
