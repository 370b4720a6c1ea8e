"""Buckets: files of the other kinds behind URLs, in stores on this machine."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from goracs_jax.buckets import as_path
from kinds import Group, Kind, arrays, records

#: What each is compared with.
TEXTS, ROWS = records.RECORDS, arrays.X.tolist()
#: Kinds of texts and arrays that are shown for all.
SHOWN = [
    "JSONL, one record on each line",
    "gzip",
    "Parquet",
    "A folder of shards",
    "A pattern of shards",
    "A dataset saved by `save_to_disk`",
    ".npy",
    ".npz with several arrays, FILE:NAME",
    "safetensors with several, FILE:NAME",
    "Parquet, FILE:COLUMN",
    "A folder of Parquet shards",
]
#: Those that are shown for stores whose other kinds are read by the same code.
FEW = [SHOWN[0], SHOWN[2], SHOWN[5], SHOWN[8], SHOWN[9]]


class Running(NamedTuple):
    """A store that runs until this process ends."""

    put: Callable[[Path], None]  # the files of a folder in place of all that is there
    reached: Callable[[], AbstractContextManager[None]]


def _stays(context):
    """What a context yields, which is left when this process ends."""
    running = ExitStack()
    atexit.register(running.close)
    return running.enter_context(context)


@cache
def s3():
    import loopback
    import s3fs

    address = _stays(loopback.server(os.devnull))
    client = loopback.client(address)
    client.mkdir("pool")

    def put(folder):
        if client.exists("pool/in"):
            client.rm("pool/in", recursive=True)
        client.put(f"{folder}/", "pool/in", recursive=True)

    @contextmanager
    def reached():
        s3fs.S3FileSystem.clear_instance_cache()
        with patch.dict(os.environ, loopback.CLIENT | {"AWS_ENDPOINT_URL": address}):
            yield
        s3fs.S3FileSystem.clear_instance_cache()

    return Running(put, reached)


def _of_folder(there):
    """What puts files where a server has them."""

    def put(folder):
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(folder, there)

    return put


@cache
def gs():
    import gcs_server

    root = Path(_stays(tempfile.TemporaryDirectory()))
    address = _stays(gcs_server.serving(root)).url
    return Running(_of_folder(root / "pool/in"), lambda: gcs_server.reached(address))


@cache
def hf():
    import hub_server

    root = Path(_stays(tempfile.TemporaryDirectory()))
    repos = {"datasets/org/pool": {hub_server.MAIN: root}}
    address = _stays(hub_server.serving(repos)).url
    return Running(_of_folder(root / "in"), lambda: hub_server.reached(address))


class Store(NamedTuple):
    """A kind of store: where files are put in it, and what it takes to run one."""

    folder: str
    running: Callable[[], Running]
    needs: str
    shown: list[str]


STORES = {
    "s3": Store("s3://pool/in", s3, "moto", SHOWN),
    "gs": Store("gs://pool/in", gs, "gcsfs", FEW),
    "hf": Store("hf://datasets/org/pool/in", hf, "", FEW),
}


def read(given):
    """Read a URL as a user does who has the store's address and keys."""
    how, url = given
    store = STORES.get(url.partition(":")[0])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as reached:
        reached.enter_context(patch.dict(os.environ, {"GORACS_CACHE": folder}))
        if store:
            reached.enter_context(store.running().reached())
        return how(as_path(url))


def put(store, group, kind):
    """Put what a kind makes into a store."""

    def make(folder):
        path = str(kind.make(folder))
        store.running().put(folder)
        return group.read, path.replace(str(folder), store.folder)

    return make


def of(scheme, group, right):
    """The rows of the table for the kinds of a group that are shown."""
    store = STORES[scheme]
    return [
        Kind(
            f"`{scheme}://`: {kind.name}",
            put(store, group, kind),
            right,
            needs=store.needs,
        )
        for kind in group.kinds
        if kind.name in store.shown
    ]


def missing(about, url):
    """The row of the table for what is not there."""
    scheme = url.partition(":")[0]
    return Kind(
        f"`{scheme}://`: {about} that is not there",
        lambda folder: (records.read, url),
        line=rf"{url} does not exist: check the path",
        needs=STORES[scheme].needs,
    )


GROUP = Group(
    "Buckets: all kinds of texts and arrays above, of which some are shown here",
    read,
    TEXTS,
    (
        *of("s3", records.GROUP, TEXTS),
        *of("s3", arrays.GROUP, ROWS),
        missing("an object", "s3://pool/none.jsonl"),
        missing("a bucket", "s3://nowhere/a.jsonl"),
        *of("gs", records.GROUP, TEXTS),
        *of("gs", arrays.GROUP, ROWS),
        missing("an object", "gs://pool/none.jsonl"),
        missing("a bucket", "gs://nowhere/a.jsonl"),
        *of("hf", records.GROUP, TEXTS),
        *of("hf", arrays.GROUP, ROWS),
        missing("a file", "hf://datasets/org/pool/none.jsonl"),
        Kind(
            "`hf://`: a repository that is not there, or that you may not see",
            lambda folder: (records.read, "hf://datasets/org/none/a.jsonl"),
            line=r"no such repository, or one that you may not see: .* set HF_TOKEN",
        ),
        Kind(
            "`https://` and all others",
            lambda folder: (records.read, "https://host/a.jsonl"),
            line=r"https://host/a\.jsonl: URLs of s3://, gs:// and hf:// are read",
        ),
    ),
)
