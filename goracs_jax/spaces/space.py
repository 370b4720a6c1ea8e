"""The space in which a selection takes its distances: a transform and a metric."""

from typing import Any, NamedTuple

import numpy as np

from goracs_jax.choices import Metric
from goracs_jax.errors import InputError
from goracs_jax.spaces.transforms import transform_of, unit_rows


class Space(NamedTuple):
    """How both sets of embeddings are changed before distances are taken.

    Args:
        transform: A name that `goracs_jax.spaces.transform_of` reads; it is fitted on
            the validation rows.
        metric: Euclidean distance, or sqrt(2 - 2 cos), which is the Euclidean distance
            of rows of length 1.

    >>> x, y = np.array([[0.0, 2.0]]), np.array([[3.0, 0.0]])
    >>> [rows.tolist() for rows in Space(metric="cosine").of(x, y)]
    [[[0.0, 1.0]], [[1.0, 0.0]]]
    """

    transform: str = "none"
    metric: Metric = "euclidean"

    @property
    def identity(self) -> dict[str, Any]:
        """What a selection depends on; nothing where embeddings stay as they are."""
        return {} if self == Space() else self._asdict()

    def check(self, n_valid: int) -> None:
        """Check what can be known before there are embeddings.

        Raises:
            InputError: There is no such transform, or it needs more directions than
                this number of validation rows can vary in.
        """
        needed = getattr(transform_of(self.transform), "k", 0)
        if needed >= n_valid:
            raise InputError(
                f"--transform {self.transform} needs {needed} directions, and "
                f"{n_valid} validation examples vary in {n_valid - 1} at most: give a "
                "smaller number."
            )

    def of(self, train: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bring both sets into this space.

        Args:
            train: x_i, shape [N, dim].
            valid: y_j, shape [M, dim].

        Raises:
            InputError: As the transform, or as `goracs_jax.spaces.unit_rows`.
        """
        transform = transform_of(self.transform)
        if transform:
            fitted = transform.fit(valid)
            train, valid = fitted.transform(train), fitted.transform(valid)
        if self.metric == "cosine":
            train = unit_rows(train, "training embeddings")
            valid = unit_rows(valid, "validation embeddings")
        return train, valid
