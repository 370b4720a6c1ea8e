"""Training examples that are copies of others, which validate or test.

A copy of a validation example costs nothing to transport, so a selection takes it first
and what it is judged by tells less; a copy of a test example makes a model look better
than it is.
"""

import hashlib
import importlib.util
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from goracs_jax.errors import InputError

#: Random permutations of a MinHash, and the probability at which a pair that is just
#: similar enough may be missed.
PERMUTATIONS, MISSED = 128, 1e-3
#: Words of a shingle.
SHINGLE = 3


def plain(text: str) -> str:
    r"""Return a text without differences of white space, case and Unicode's forms.

    An accent that is a character of its own is a part of its letter (NFC).

    >>> plain(" Heat\n (1995)"), plain("cafe\u0301") == plain("CAF\u00c9")
    ('heat (1995)', True)
    """
    return unicodedata.normalize("NFC", " ".join(text.split()).casefold())


def digest_of(texts: Iterable[str]) -> bytes:
    """Return 16 bytes that stand for some texts, none of which has the character NUL.

    >>> digest_of(["a", "bc"]) == digest_of(["ab", "c"])
    False
    """
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).digest()


class Copies:
    """Finds out which of some known texts another text equals, or nearly equals.

    Two texts are equal if they are so after white space, case and NFC. They are nearly
    equal if the sets of their shingles, three words in a row, have at least a given
    Jaccard similarity |A and B| / |A or B|. Pairs that may be so are found by MinHash
    (Broder, 1997) and banding, with the datasketch library, then counted exactly: no
    pair is found that is less similar, and one that is similar enough is missed with a
    probability of at most 1e-3. Writing without spaces has no words to compare: only
    equal texts of it are found.

    Args:
        known: The texts of each example: instruction, input and output.
        similarity: The least similarity of a near copy, above 0 and at most 1; without
            it only equal texts are copies.

    Raises:
        InputError: The similarity is out of range, or the library is not installed.

    >>> copies = Copies([("Name it.", "Heat", "Alien")])
    >>> copies.match(("name it. ", "HEAT", "Alien")), copies.match(("", "", "Alien"))
    (0, None)
    """

    def __init__(
        self, known: Iterable[Sequence[str]], similarity: float | None = None
    ) -> None:
        self._least = similarity or 1.0
        self._rows: dict[bytes, int] = {}
        self._shingles: list[set[str]] = []
        self._bands: Any = None if similarity is None else _bands(similarity)
        for row, texts in enumerate(known):
            self._rows.setdefault(digest_of(map(plain, texts)), row)
            if self._bands is not None:
                self._shingles.append(_shingles(texts))
                self._bands.insert(row, _minhash(self._shingles[-1]))

    def match(self, texts: Sequence[str]) -> int | None:
        """Return the number of a known example that these texts copy, or None."""
        row = self._rows.get(digest_of(map(plain, texts)))
        if row is not None or self._bands is None:
            return row
        mine = _shingles(texts)
        found = sorted(self._bands.query(_minhash(mine)))
        similar = (
            row for row in found if jaccard(mine, self._shingles[row]) >= self._least
        )
        return next(similar, None)


def jaccard(a: set[str], b: set[str]) -> float:
    """Return the share of the elements of two sets that are in both.

    >>> jaccard({"a", "b"}, {"b", "c"})
    0.333
    """
    return len(a & b) / len(a | b)


def _shingles(texts: Sequence[str]) -> set[str]:
    words = plain(" ".join(texts)).split()
    starts = range(max(1, len(words) - SHINGLE + 1))
    return {" ".join(words[i : i + SHINGLE]) for i in starts}


def _bands(similarity: float) -> Any:
    """Make an index of MinHashes in as few bands as miss nearly nothing.

    Two sets of similarity s agree in a band of r rows with probability s^r, and in none
    of b bands with (1 - s^r)^b.
    """
    if not 0 < similarity <= 1:
        raise InputError(
            f"--near-copies must be above 0 and at most 1, got {similarity}."
        )
    if importlib.util.find_spec("datasketch") is None:
        raise InputError(
            "--near-copies needs an extra package: pip install 'goracs_jax[near]', or "
            "leave the flag out."
        )
    from datasketch import MinHashLSH

    missed = lambda r: (1 - similarity**r) ** (PERMUTATIONS // r)
    enough = [r for r in range(1, PERMUTATIONS // 2 + 1) if missed(r) <= MISSED]
    if not enough:
        raise InputError(f"--near-copies {similarity} is too little: give 0.1 or more.")
    params = (PERMUTATIONS // enough[-1], enough[-1])
    return MinHashLSH(num_perm=PERMUTATIONS, params=params)


def _minhash(shingles: set[str]) -> Any:
    from datasketch import MinHash

    found = MinHash(num_perm=PERMUTATIONS, seed=1)
    found.update_batch([shingle.encode() for shingle in shingles])
    return found
