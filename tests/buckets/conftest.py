"""A bucket on this machine, and a cache of its own for each test."""

import re

import loopback
import pytest
import s3fs

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """The server, and the log of its requests beside it."""
    log = tmp_path_factory.mktemp("server") / "requests.log"
    with loopback.server(log) as address:
        yield address, log


@pytest.fixture
def bucket(address, tmp_path, monkeypatch):
    """An empty bucket called `pool`, which the package reaches by the environment."""
    for name, value in loopback.CLIENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address[0])
    monkeypatch.setenv("GORACS_CACHE", str(tmp_path / "cache"))
    s3fs.S3FileSystem.clear_instance_cache()
    store = loopback.client(address[0])
    store.mkdir("pool")
    yield store
    store.rm("pool", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def requests(address):
    """From a function to the requests that reach the server while it runs."""

    def seen(call):
        before = address[1].stat().st_size
        call()
        with address[1].open() as log:
            log.seek(before)
            # The server may colour its lines.
            return [COLOUR.sub("", line) for line in log if '"' in line]

    return seen
