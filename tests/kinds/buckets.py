"""Buckets: files of the other kinds behind URLs, in a store on this machine."""

import atexit
import os
import tempfile
from contextlib import ExitStack
from functools import cache
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


@cache
def server():
    """The address of the store, which runs until this process ends; and a client."""
    import loopback

    running = ExitStack()
    atexit.register(running.close)
    address = running.enter_context(loopback.server(os.devnull))
    client = loopback.client(address)
    client.mkdir("pool")
    return address, client


def read(given):
    """Read a URL as a user does who has the store's address and keys."""
    import loopback
    import s3fs

    how, url = given
    with tempfile.TemporaryDirectory() as cache:
        own = {"AWS_ENDPOINT_URL": server()[0], "GORACS_CACHE": cache}
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            with patch.dict(os.environ, loopback.CLIENT | own):
                return how(as_path(url))
        finally:
            s3fs.S3FileSystem.clear_instance_cache()


def put(group, name):
    """Put what a kind makes into the store."""
    (kind,) = (kind for kind in group.kinds if kind.name == name)

    def make(folder):
        path = str(kind.make(folder))
        _, store = server()
        if store.exists("pool/in"):
            store.rm("pool/in", recursive=True)
        store.put(f"{folder}/", "pool/in", recursive=True)
        return group.read, path.replace(str(folder), "s3://pool/in")

    return make


def of(group, right):
    """The rows of the table for some kinds of a group."""
    here = [name for name in SHOWN if name in {kind.name for kind in group.kinds}]
    return [
        Kind(f"`s3://`: {name}", put(group, name), right, needs="moto") for name in here
    ]


GROUP = Group(
    "Buckets: all kinds of texts and arrays above, of which some are shown here",
    read,
    TEXTS,
    (
        *of(records.GROUP, TEXTS),
        *of(arrays.GROUP, ROWS),
        Kind(
            "`s3://`: an object that is not there",
            lambda folder: (records.read, "s3://pool/none.jsonl"),
            line=r"s3://pool/none\.jsonl does not exist: check the path",
            needs="moto",
        ),
        Kind(
            "`s3://`: a bucket that is not there",
            lambda folder: (records.read, "s3://nowhere/a.jsonl"),
            line=r"s3://nowhere/a\.jsonl does not exist: check the path",
            needs="moto",
        ),
        Kind(
            "`https://` and all others",
            lambda folder: (records.read, "https://host/a.jsonl"),
            line=r"https://host/a\.jsonl: URLs of s3://, gs:// and hf:// are read",
            needs="moto",
        ),
    ),
)
