"""The order of the examples and their dropout, by content: the same in any company.

Two trainings that share examples share what chance does to them. An example's place in
an epoch and its dropout depend on its own tokens and labels, on the seed and on the
epoch, and not on the other examples, its row in the file, or the step.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Int32

from goracs_jax.llm.tokens import Tokens

SIZE = 8  # bytes of a digest


class Order(NamedTuple):
    """What orders the examples of a run: a digest of each, and the seed."""

    digests: tuple[bytes, ...]
    seed: int

    @classmethod
    def of(cls, tokens: Tokens, seed: int) -> "Order":
        """Digest the ids and labels of each example.

        Examples that are equal in both are told apart by how many came before.

        Args:
            tokens: The training examples.
            seed: Seed of the run.

        >>> from goracs_jax.llm.tokens import ragged
        >>> order = Order.of(ragged([[1, 2], [3], [1, 2]]), seed=0)
        >>> len(set(order.digests))
        3
        """
        whole = (tokens.ids, tokens.labels)
        places = pairwise(tokens.offsets.tolist())
        contents = (
            b"".join(x[start:end].astype("<i4").tobytes() for x in whole)
            for start, end in places
        )
        return cls.of_contents(contents, seed)

    @classmethod
    def of_contents(cls, contents: Iterable[bytes], seed: int) -> "Order":
        """Digest the contents of anything; equal ones are told apart as in `of`.

        >>> Order.of_contents([b"a", b"b"], 3).epoch(0).tolist()
        [1, 0]
        """
        found, seen = [], Counter()
        for content in map(_hash, contents):
            found.append(_hash(content, seen[content]))
            seen[content] += 1
        return cls(tuple(found), seed)

    def epoch(self, number: int) -> Int[np.ndarray, " train"]:
        """Return the order in which an epoch takes the examples.

        It sorts them by a hash of (seed, epoch, digest). Where one example is replaced,
        the others keep their order, and nearly all of them their steps.

        Args:
            number: Number of the epoch, from 0.

        Returns:
            A permutation of the rows.

        >>> order = Order(tuple(bytes([i]) for i in range(9)), seed=0)
        >>> first = order.epoch(0).tolist()
        >>> without = order._replace(digests=order.digests[:8]).epoch(0).tolist()
        >>> [i for i in first if i < 8] == without
        True
        """
        return _sorted(self.digests, self.seed, number)

    def key(self, epoch: int) -> jax.Array:
        """Return the random key of an epoch's dropout."""
        return jax.random.fold_in(jax.random.key(self.seed), epoch)

    def numbers(self, rows: Int[np.ndarray, " some"]) -> Int32[np.ndarray, " some"]:
        """Return 31 bits of the digests of some rows, which tell their dropout apart.

        >>> Order((bytes(8), bytes([255] * 8)), seed=0).numbers(np.array([1, 0]))
        array([2147483647,          0], dtype=int32)
        """
        bits = [int.from_bytes(self.digests[row][:4], "big") >> 1 for row in rows]
        return np.array(bits, np.int32)


@lru_cache(maxsize=1)
def _sorted(
    digests: tuple[bytes, ...], seed: int, epoch: int
) -> Int[np.ndarray, " train"]:
    keys = [_hash(digest, seed, epoch) for digest in digests]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _hash(content: bytes, *numbers: int) -> bytes:
    words = np.array(numbers, "<u8").tobytes()
    return blake2b(words + content, digest_size=SIZE).digest()
