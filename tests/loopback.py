"""Servers on this machine, one of S3 among them: real HTTP, and nobody's store."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

import s3fs

S = TypeVar("S", bound="Local")
#: What a client of the server has in its environment.
CLIENT = {
    "AWS_ACCESS_KEY_ID": "me",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def server(log: str | os.PathLike) -> Iterator[str]:
    """Run the server, and yield its address; each request is a line of the log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with open(log, "w") as file:
        running = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


def client(address: str) -> s3fs.S3FileSystem:
    """A client that is not the package's, to see what is in a bucket."""
    return s3fs.S3FileSystem(
        key="me",
        secret="secret",
        endpoint_url=address,
        use_listings_cache=False,
        skip_instance_cache=True,
    )


class Local(ThreadingHTTPServer):
    """A server of this machine, at any free port."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]):
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running(server: S) -> Iterator[S]:
    """Answer requests in a thread while the context lasts."""
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
