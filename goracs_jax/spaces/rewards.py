"""What the reward of a training example is, beside its distance to the target."""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from goracs_jax.cost import chunks
from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_array
from goracs_jax.shapes import GivenArray
from goracs_jax.spaces.transforms import ROUNDING

KINDS = ("grad-norm", "alignment", "loss-drop", "none")


class Reward(NamedTuple):
    """The reward of a selection; `drop` is for alignment, see `alignment`.

    >>> Reward.named("alignment/drop:1"), str(Reward("alignment", 1))
    (Reward(kind='alignment', drop=1), 'alignment/drop:1')
    """

    kind: str
    drop: int = 0

    @classmethod
    def named(cls, name: str) -> "Reward":
        """Read the name of a reward.

        Raises:
            InputError: There is no such reward.
        """
        if name in KINDS:
            return cls(name)
        if found := re.fullmatch("alignment/drop:([0-9]{1,6})", name):
            return cls("alignment", int(found[1]))
        raise InputError(
            f"a reward is {', '.join(KINDS)} or alignment/drop:K with an integer K, "
            f"got {name!r}."
        )

    def __str__(self) -> str:
        """Return the name."""
        return self.kind + (f"/drop:{self.drop}" if self.drop else "")


def alignment(
    train: GivenArray,
    valid: GivenArray,
    *,
    train_labels: GivenArray | None = None,
    valid_labels: GivenArray | None = None,
    drop: int = 0,
) -> Float32[np.ndarray, " train"]:
    r"""Return the inner product of each gradient with the mean of the target's.

    r_i = <x_i, P m>,  m = (1/M) sum_j y_j,  P = I - V_K V_K'

    One step of size eta on example i lowers the mean validation loss by eta <x_i, m> to
    first order, of which ||x_i|| ||m|| is the upper bound. V_K are the K leading right
    singular vectors of the validation gradients, which are not centred: of gradients
    the leading one is often that of the answer's token. With labels, m is the mean over
    the validation rows of the example's class. The inner product with the mean of all
    favours whatever class is the larger.

    Args:
        train: Gradients x_i, or projections of them, shape [N, dim].
        valid: y_j, likewise, shape [M, dim].
        train_labels: The class of each training row, shape [N].
        valid_labels: The class of each validation row, shape [M].
        drop: K, the directions that do not count.

    Returns:
        One number of any sign per training row; 0 where validation lacks its class.

    Raises:
        InputError: Shapes do not fit, validation gradients are not finite, K directions
            are all that there is, or no class is in both sets.

    >>> x, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 1.0], [3.0, 0.0]])
    >>> alignment(x, y).tolist()
    [3.0, 0.5]
    >>> c = np.array([0, 1])
    >>> alignment(x, y, train_labels=c, valid_labels=c).tolist()
    [3.0, 0.0]
    """
    x, y = as_array(train), np.asarray(as_array(valid), np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not y.size:
        raise InputError(
            "gradients of both sets must be matrices [rows, dim] of one width, got "
            f"{list(x.shape)} and {list(y.shape)}."
        )
    if not np.isfinite(y).all():
        raise InputError("the validation gradients are not all finite numbers.")
    if isinstance(drop, bool) or drop < 0:
        raise InputError(f"drop must be an integer of at least 0, got {drop}.")
    if (train_labels is None) != (valid_labels is None):
        raise InputError("give labels of both sets, or of none.")
    names, theirs = np.unique(
        np.zeros(len(y)) if valid_labels is None else as_array(valid_labels),
        return_inverse=True,
    )
    mine = np.zeros(len(x)) if train_labels is None else as_array(train_labels)
    if len(mine) != len(x) or len(theirs) != len(y):
        raise InputError(
            f"labels must be one per row, {len(x)} and {len(y)}, got {len(mine)} and "
            f"{len(theirs)}."
        )
    means = np.stack([y[theirs == c].mean(0) for c in range(len(names))])
    if drop:
        means -= means @ (directions := _leading(y, drop)) @ directions.T
    place = np.minimum(np.searchsorted(names, mine), len(names) - 1)
    means = np.concatenate([means, np.zeros((1, y.shape[1]))])
    known = names[place] == mine
    if not np.any(known):
        raise InputError(
            "no training row has a class of the validation rows, so nothing is aligned:"
            " check that both sets name their classes alike."
        )
    place = np.where(known, place, len(names))
    found, first = np.empty(len(x), np.float32), 0
    for part in chunks(x):
        rows = slice(first, first + len(part))
        found[rows] = np.einsum("id,id->i", part.astype(np.float64), means[place[rows]])
        first = rows.stop
    return found


def _leading(y: np.ndarray, k: int) -> np.ndarray:
    """Return the k leading right singular vectors, [dim, k]."""
    _, s, v = np.linalg.svd(y, full_matrices=False)
    rank = int(np.sum(s > ROUNDING * max(y.shape) ** 0.5 * s[0]))
    if k >= rank:
        raise InputError(
            f"alignment without {k} directions is nothing: the {len(y)} validation "
            f"gradients have {rank}; drop fewer."
        )
    return v[:k].T
