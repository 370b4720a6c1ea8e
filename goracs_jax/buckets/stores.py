"""The stores behind URLs, by fsspec, and what is said where one does not answer."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from goracs_jax.disk import is_full
from goracs_jax.errors import InputError, one_line

T = TypeVar("T")


class Store(NamedTuple):
    """What a kind of store needs: a package, and how a user shows who they are."""

    extra: str  # of this package, with the store's own; empty where it is there
    credentials: str
    options: dict[str, Any] = {}  # noqa: RUF012 (read alone)


STORES = {
    "s3": Store(
        "s3",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (for a public "
        "bucket FSSPEC_S3_ANON=true)",
        # Else a store that is not there is asked for minutes.
        {
            "config_kwargs": {
                "connect_timeout": 5,
                "retries": {"mode": "standard", "max_attempts": 3},
            }
        },
    ),
    "gs": Store(
        "gcs",
        "run gcloud auth application-default login, or set "
        "GOOGLE_APPLICATION_CREDENTIALS (for a public bucket FSSPEC_GS_TOKEN=anon)",
    ),
    # Else 5 MiB behind each range are fetched, too.
    "hf": Store("", "set HF_TOKEN, or run hf auth login", {"block_size": 1}),
}
# Its errors are told in a line: without a handler, Python prints their tracebacks, too.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())
#: What an object's description calls the mark of its content, in each kind of store.
MARKS = ("ETag", "etag", "md5Hash", "xet_hash", "blob_id")
#: Parts of the names of errors that tell why a store does not answer.
NOBODY = ("Credential", "Token", "Auth", "Gated", "Permission", "Forbidden")
#: That of the hub for what is not there, or for others alone.
HIDDEN = "RepositoryNotFoundError"
NETWORK = ("Connect", "Timeout", "DNS", "Resolve", "Socket", "Endpoint")


def store_of(url: str) -> Any:
    """Return the fsspec file system of a URL.

    Raises:
        InputError: It needs a package that is not installed.
    """
    scheme = url.partition(":")[0]
    kind = STORES[scheme]

    def made() -> Any:
        import fsspec

        return fsspec.filesystem(scheme, use_listings_cache=False, **kind.options)

    return asked(url, made)


def look_anew(url: str) -> None:
    """Forget the listings of the hub, whose file system keeps them in any case.

    Each of its listings is a request for a whole folder, and a hub counts requests: it
    is looked at anew for each URL that a user gives, and not for each question.
    """
    if url.startswith("hf:"):
        store_of(url).invalidate_cache()


def asked(url: str, call: Callable[[], T]) -> T:
    """Ask a store, and say in one line why it does not answer.

    Args:
        url: What it is asked about.
        call: The question.

    Raises:
        FileNotFoundError: There is no such object.
        OSError: The disk of this machine is full.
        InputError: A package or credentials are missing, the store is not reached, or
            the hub does not show the repository.

    >>> asked("s3://b/k", lambda: [][0])
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: s3://b/k: s3 does not answer (IndexError: list ...
    """
    scheme = url.partition(":")[0]
    kind = STORES[scheme]
    try:
        return call()
    except InputError:
        raise
    except FileNotFoundError as error:
        if type(error.__cause__).__name__ != HIDDEN:
            raise
        raise InputError(
            f"{url}: no such repository, or one that you may not see: check the name; "
            f"if it is private, {kind.credentials}."
        ) from None
    except ImportError as error:
        if not kind.extra:
            raise
        raise InputError(
            f"{url}: {scheme}:// needs an extra package ({one_line(error)}): pip "
            f"install 'goracs_jax[{kind.extra}]'."
        ) from None
    except Exception as error:
        if is_full(error):
            raise
        chain = [error, error.__cause__ or error.__context__]
        names = " ".join(type(each).__name__ for each in chain if each)
        # gcsfs has no names for them.
        denied = getattr(error, "code", 0) in (401, 403) or "Forbidden" in str(error)
        why = f"({type(error).__name__}: {one_line(error)})"
        if denied or any(part in names for part in NOBODY):
            raise InputError(f"{url}: no access {why}: {kind.credentials}.") from None
        if any(part in names for part in NETWORK):
            raise InputError(
                f"{url}: {scheme} is not reached {why}: check the network, and the "
                "endpoint if you set one."
            ) from None
        raise InputError(
            f"{url}: {scheme} does not answer {why}: check the path and try again."
        ) from None


def mark_of(described: dict[str, Any]) -> str:
    """Return the mark of an object's content: another content has another mark.

    >>> mark_of({"ETag": '"900150983cd24fb0"', "size": 3})
    '3-900150983cd24fb0'
    """
    found = [described[name] for name in MARKS if described.get(name)]
    changed = described.get("LastModified") or described.get("mtime") or ""
    return f"{described.get('size')}-{found[0] if found else changed}".replace('"', "")
