"""The identity of a stored result, which names it: all that its bytes depend on.

A name outlives a version of the package. Each kind of result has its own revision, an
integer that is raised when the same inputs give more than other rounding; nothing else
makes a stored result out of date. Versions up to 0.5.0 put the version of the package
into the name instead. Results of 0.5.0 are those of revision 1, so they are still
found.
"""

from collections.abc import Mapping
from typing import Any

from goracs_jax.files import digest

#: The version whose results are those of revision 1 under another name.
FORMER_VERSION = "0.5.0"

Identity = dict[str, Any]


def identity_of(inputs: Mapping[str, Any], revision: int) -> Identity:
    """Join the inputs of a result with the revision of what computes it.

    >>> identity_of({"seed": 3}, 1)
    {'revision': 1, 'seed': 3}
    """
    return {"revision": revision, **inputs}


def former(identity: Any) -> Any:
    """Return the identity that version 0.5.0 gave the same bytes, nested ones too.

    Where a revision was raised since, no former result is the same: the identity stays
    as it is.

    >>> former({"revision": 1, "seed": 3})
    {'goracs_jax': '0.5.0', 'seed': 3}
    >>> former({"stages": {"answers": {"revision": 2}}})
    {'stages': {'answers': {'revision': 2}}}
    """
    if not isinstance(identity, dict):
        return identity
    plain = {key: former(value) for key, value in identity.items()}
    if plain.get("revision") != 1:
        return plain
    del plain["revision"]
    return {"goracs_jax": FORMER_VERSION, **plain}


def digests_of(identity: Identity) -> tuple[str, str]:
    """Return the digest of an identity, and the one that it had in version 0.5.0.

    >>> now, before = digests_of({"revision": 2})
    >>> now == before
    True
    """
    return digest(identity), digest(former(identity))
