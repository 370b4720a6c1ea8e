"""A hub of Hugging Face on loopback: models and datasets, by as much of its protocol
as it takes to fetch them, to read ranges, and to commit files."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

from huggingface_hub import HfFileSystem, constants
from loopback import Local, running

MAIN, OLD = "a" * 40, "b" * 40
GATED, PRIVATE = "org/gated", "org/private"
Answer = tuple[int, bytes, dict[str, str]]


class Hub(Local):
    """Serves folders by name and commit; `asked` has the paths of all requests.

    A model is called org/name, a dataset datasets/org/name.
    """

    def __init__(self, repos: dict[str, dict[str, Path]]):
        super().__init__(_Handler)
        self.repos, self.asked, self.sent = repos, list[str](), 0


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.asked.append(path)
        status, content, headers = self._answer(path.split("/"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
            self.server.sent += len(content)

    do_HEAD = do_POST = do_GET

    def _answer(self, parts: list[str]) -> Answer:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        is_api = parts[0] == "api"
        parts = parts[is_api:]
        kind = parts.pop(0) if parts[0] in ("models", "datasets") else "models"
        name, (what, *rest) = "/".join(parts[:2]), parts[2:] or ["revision"]
        key = name if kind == "models" else f"datasets/{name}"
        if name == PRIVATE or key not in self.server.repos:
            return _failed(401, "RepoNotFound")
        commits = self.server.repos[key]
        revision = rest.pop(0) if rest else "main"
        commit = {"main": MAIN, "v1": OLD}.get(revision, revision)
        if commit not in commits:
            return _failed(404, "RevisionNotFound")
        folder, inner = commits[commit], "/".join(rest)
        if what == "tree":
            return _tree(folder / inner, folder, "recursive=true" in self.path.lower())
        if what == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return _json({"files": files})
        if what == "commit":
            for line in body.splitlines():
                _commit(folder, **json.loads(line))
            url = f"{self.server.url}/{key}/commit/{commit}"
            return _json({"commitUrl": url, "commitOid": commit})
        if is_api:
            return _json({"id": name, "sha": commit, "siblings": [], "tags": []})
        if name == GATED:
            return _failed(403, "GatedRepo")
        return self._file(folder / inner, commit)

    def _file(self, file: Path, commit: str) -> Answer:
        if not file.is_file():
            return _failed(404, "EntryNotFound")
        content = file.read_bytes()
        headers = {"ETag": f'"{_hash(content)}"', "X-Repo-Commit": commit}
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            return 206, content[int(first) : int(last or len(content)) + 1], headers
        return 200, content, headers

    def log_message(self, *_):
        pass


def _json(value: object) -> Answer:
    return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}


def _failed(status: int, code: str) -> Answer:
    return status, b"", {"X-Error-Code": code, "X-Error-Message": code}


def _tree(folder: Path, root: Path, recursive: bool) -> Answer:
    if not folder.is_dir():
        return _failed(404, "EntryNotFound")
    found = sorted(folder.rglob("*") if recursive else folder.iterdir())
    return _json([_entry(path, root) for path in found])


def _entry(path: Path, root: Path) -> dict:
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": _hash(name.encode())}
    content = path.read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": _hash(content)}


def _commit(folder: Path, key: str, value: dict) -> None:
    if key == "file":
        file = folder / value["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(value["content"]))
    elif key == "deletedFile":
        (folder / value["path"]).unlink()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serving(repos: dict[str, dict[str, Path]]) -> Iterator[Hub]:
    """Serve models and datasets while the context lasts."""
    with running(Hub(repos)) as hub:
        yield hub


@contextmanager
def reached(address: str) -> Iterator[None]:
    """Let huggingface_hub take a server in place of the hub."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    HfFileSystem.clear_instance_cache()
    try:
        # The library reads its variables once, at import.
        with (
            patch.object(constants, "ENDPOINT", address),
            patch.object(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template),
        ):
            yield
    finally:
        HfFileSystem.clear_instance_cache()
