"""The space in which a selection takes its distances: sources, transform and metric."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np

from goracs_jax.choices import Metric
from goracs_jax.cost import chunks
from goracs_jax.errors import InputError
from goracs_jax.spaces.transforms import transform_of, unit_rows

#: The end of a space's name that may be a transform; the metric is one of `Metric`.
TRANSFORM = re.compile("none|center|whiten|(subspace|drop):[0-9]+")

Pair = tuple[np.ndarray, np.ndarray]


class Source(NamedTuple):
    """Where rows come from, and their weight beside the rows of other sources."""

    name: str
    weight: float = 1.0


class Space(NamedTuple):
    """Where both sets of rows come from, and how they are changed before distances.

    Its name is SOURCES[/TRANSFORM][/METRIC].

    Args:
        sources: The name of a source, or several joined by "+", each with or without a
            weight: "text+gradient:0.5".
        transform: A name that `goracs_jax.spaces.transform_of` reads; it is fitted on
            the validation rows of each source.
        metric: Euclidean distance, or sqrt(2 - 2 cos), which is the Euclidean distance
            of rows of length 1.

    >>> x, y = np.array([[0.0, 2.0]]), np.array([[3.0, 0.0]])
    >>> [rows.tolist() for rows in Space(metric="cosine").of([(x, y)])]
    [[[0.0, 1.0]], [[1.0, 0.0]]]
    """

    sources: str = "text"
    transform: str = "none"
    metric: Metric = "euclidean"

    @classmethod
    def named(cls, name: str) -> "Space":
        """Read the name of a space.

        >>> Space.named("gradient/drop:1").transform, str(Space.named("text/cosine"))
        ('drop:1', 'text/cosine')
        """
        rest, found = name, {}
        head, slash, last = rest.rpartition("/")
        if slash and last in get_args(Metric):
            rest, found["metric"] = head, last
        head, slash, last = rest.rpartition("/")
        if slash and TRANSFORM.fullmatch(last):
            rest, found["transform"] = head, last
        return cls(rest, **found)

    def __str__(self) -> str:
        """Return the name, without what is the default."""
        changed = [x for x in self[1:] if x not in self._field_defaults.values()]
        return "/".join([self.sources, *changed])

    @property
    def parts(self) -> list[Source]:
        """The sources in their order.

        Raises:
            InputError: A source is empty or named twice, or a weight is not positive.

        >>> Space("text+gradient:0.5").parts
        [Source(name='text', weight=1.0), Source(name='gradient', weight=0.5)]
        """
        found = [_source(text) for text in self.sources.split("+")]
        names = [source.name for source in found]
        if not all(names) or len(set(names)) < len(names):
            raise InputError(
                f"a space takes its rows from one source, or from several different "
                f"ones joined by +, got {self.sources!r}."
            )
        return found

    @property
    def identity(self) -> dict[str, Any]:
        """What a selection depends on beside its rows; nothing where they stay so."""
        found = self._asdict()
        if len(self.parts) == 1:
            del found["sources"]
        plain = self._replace(sources="text") == Space()
        return {} if plain and len(self.parts) == 1 else found

    def check(self, n_valid: int) -> None:
        """Check what can be known before there are rows.

        Raises:
            InputError: As `parts`; there is no such transform, or it needs more
                directions than this number of validation rows can vary in.
        """
        _ = self.parts
        needed = getattr(transform_of(self.transform), "k", 0)
        if needed >= n_valid:
            raise InputError(
                f"--transform {self.transform} needs {needed} directions, and "
                f"{n_valid} validation examples vary in {n_valid - 1} at most: give a "
                "smaller number."
            )

    def of(self, pairs: Sequence[Pair]) -> Pair:
        r"""Bring both sets into this space.

        With several sources s of weight w_s, whose distances are D_s,

            D_ij^2 = sum_s w_s^2 D_s,ij^2 / mean(D_s^2),

        so that none outweighs the others by its units or its width.

        Args:
            pairs: x_i [N, dim] and y_j [M, dim] of each source, in the order of
                `parts`.

        Raises:
            InputError: As the transform, or as `goracs_jax.spaces.unit_rows`; or all
                rows of one of several sources coincide.

        >>> x, y = np.array([[0.0], [4.0]]), np.array([[0.0]])
        >>> joined, _ = Space("a+b:2").of([(x, y), (10 * x, 10 * y)])
        >>> np.linalg.norm(joined, axis=1).round(4).tolist()  # sqrt(2 + 2 * 4)
        [0.0, 3.1623]
        """
        changed = [self._changed(*pair) for pair in pairs]
        if len(changed) == 1:
            return changed[0]
        scaled = []
        for (x, y), (name, weight) in zip(changed, self.parts, strict=True):
            size = _mean_square(x, y) ** 0.5
            if not size:
                raise InputError(
                    f"all rows of the source {name} are the same: leave it out."
                )
            scaled.append(
                [(weight / size * rows).astype(np.float32) for rows in (x, y)]
            )
        train, valid = (np.concatenate(side, 1) for side in zip(*scaled, strict=True))
        return train, valid

    def _changed(self, train: np.ndarray, valid: np.ndarray) -> Pair:
        transform = transform_of(self.transform)
        if transform:
            fitted = transform.fit(valid)
            train, valid = fitted.transform(train), fitted.transform(valid)
        if self.metric == "cosine":
            train = unit_rows(train, "training embeddings")
            valid = unit_rows(valid, "validation embeddings")
        return train, valid


def _source(text: str) -> Source:
    name, colon, weight = text.rpartition(":")
    if not colon:
        return Source(text)
    try:
        value = float(weight)
    except ValueError:
        return Source(text)  # a file with a colon in its name
    if not (value > 0 and math.isfinite(value)):
        raise InputError(f"the weight of a source must be positive, got {text!r}.")
    return Source(name, value)


def _mean_square(x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean of D_ij^2: both spreads, and the distance of the means."""
    centre = y.mean(0, dtype=np.float64)
    parts = lambda rows: (part - centre for part in chunks(rows))
    spread = lambda rows: sum(np.sum(part**2) for part in parts(rows)) / len(rows)
    # About the mean of y, the products of x and y add up to zero.
    return float(spread(x) + spread(y))
