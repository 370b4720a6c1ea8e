"""What the reward of a training example is, beside its distance to the target."""

import re
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Int

from goracs_jax.cost import chunks
from goracs_jax.errors import InputError
from goracs_jax.inputs.arrays import as_array
from goracs_jax.shapes import GivenArray
from goracs_jax.spaces.transforms import ROUNDING

KINDS = ("grad-norm", "alignment", "probe", "loss-drop", "none")
#: The classes of the rows of both sets.
Labels: TypeAlias = tuple[GivenArray, GivenArray]


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

    @property
    def source(self) -> str | None:
        """The source whose rows the reward is computed from, where it is from rows.

        >>> Reward("alignment").source, Reward("probe").source, Reward("none").source
        ('gradient', 'prompts', None)
        """
        return {"alignment": "gradient", "probe": "prompts"}.get(self.kind)

    def check_labels(self, given: bool) -> None:
        """Check that there are classes, where the reward needs them.

        Raises:
            InputError: There are none.
        """
        if self.kind == "probe" and not given:
            raise InputError(
                "the reward probe tells the answers of the validation examples apart: "
                "give --by-label (or METHOD:by-label, or labels of both sets), or take "
                "another reward."
            )

    def of(
        self, train: GivenArray, valid: GivenArray, labels: Labels | None
    ) -> Float32[np.ndarray, " train"]:
        """Compute the reward from the rows of its source.

        Args:
            train: The training rows.
            valid: The validation rows.
            labels: The classes of both, if there are any.

        Raises:
            InputError: As `alignment`, `probe` and `check_labels`.
        """
        self.check_labels(labels is not None)
        if self.kind == "probe" and labels:
            return probe(train, valid, *labels)
        named = dict(zip(("train_labels", "valid_labels"), labels or (), strict=False))
        return alignment(train, valid, **named, drop=self.drop)


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
    x, y = _both(train, valid)
    if isinstance(drop, bool) or drop < 0:
        raise InputError(f"drop must be an integer of at least 0, got {drop}.")
    if (train_labels is None) != (valid_labels is None):
        raise InputError("give labels of both sets, or of none.")
    if train_labels is None or valid_labels is None:
        train_labels, valid_labels = np.zeros(len(x)), np.zeros(len(y))
    mine, theirs = _numbers(train_labels, valid_labels, (len(x), len(y)))
    means = np.stack([y[theirs == c].mean(0) for c in range(theirs.max() + 1)])
    if drop:
        means -= means @ (directions := _leading(y, drop)) @ directions.T
    return _products(x, means, mine)


def probe(
    train: GivenArray,
    valid: GivenArray,
    train_labels: GivenArray,
    valid_labels: GivenArray,
    *,
    damping: float = 1.0,
) -> Float32[np.ndarray, " train"]:
    r"""Return how much each example teaches a linear classifier what the target knows.

    r_i = <z_i (e_i - p)', W>,   W = (Z'Z + d (tr Z'Z / M) I)^-1 Z'(E - P)

    z are rows whose columns are centred and divided by their standard deviation, both
    over the validation rows Z; e_i is the unit vector of the class of example i, and p
    has the shares of the classes in the validation set. W is the ridge regression of
    the validation classes. r_i is the influence (Koh and Liang, 2017) of example i on
    the squared loss of the validation set, at the classifier that knows the shares
    alone: its gradient there is -z_i (e_i - p)', and the inverse Hessian turns the
    gradient of the validation loss into W. Where `alignment` takes a step of gradient
    descent, this takes one of Newton. An example whose answer the target contradicts
    has a negative one.

    Args:
        train: Features x_i, such as mean hidden states of the prompts, shape [N, dim].
        valid: y_j, likewise, shape [M, dim].
        train_labels: The class of each training row, shape [N].
        valid_labels: The class of each validation row, shape [M].
        damping: d, above 0. With 1 the penalty is the mean of the M eigenvalues that
            M rows can have.

    Returns:
        One number of any sign per training row; 0 where validation lacks its class.

    Raises:
        InputError: Shapes do not fit, features are not finite, the damping is not above
            0, validation has one class, or no class is in both sets.

    >>> valid, c = np.array([[1.0], [3.0]]), np.array(["No", "Yes"])
    >>> probe(np.array([[1.0], [1.0]]), valid, c, c, damping=2.0).tolist()
    [0.25, -0.25]
    """
    x, y = _both(train, valid)
    if not damping > 0:
        raise InputError(f"damping must be above 0, got {damping}.")
    mine, theirs = _numbers(train_labels, valid_labels, (len(x), len(y)))
    one_hot = np.eye(theirs.max() + 1)[theirs]
    if one_hot.shape[1] == 1:
        raise InputError(
            "all validation rows have one class, so a probe has nothing to tell apart: "
            "take another reward."
        )
    mean, spread = y.mean(axis=0), y.std(axis=0)
    spread[spread == 0] = np.inf  # a column that is constant tells nothing
    z, shares = (y - mean) / spread, one_hot.mean(axis=0)
    gram = z @ z.T  # M x M: as a rule there are more columns than validation rows
    penalty = damping * max(np.trace(gram), np.finfo(float).tiny) / len(z)
    solved = np.linalg.solve(gram + penalty * np.eye(len(z)), one_hot - shares)
    # By class c, W (e_c - p), and what standardises a row.
    towards = (np.eye(len(shares)) - shares) @ (z.T @ solved).T / spread
    return _products(x, towards, mine, towards @ mean)


def _both(train: GivenArray, valid: GivenArray) -> tuple[np.ndarray, np.ndarray]:
    """Check the rows of both sets; those of validation come back in float64."""
    x, y = as_array(train), np.asarray(as_array(valid), np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not y.size:
        raise InputError(
            "the rows of both sets must be matrices [rows, dim] of one width, got "
            f"{list(x.shape)} and {list(y.shape)}."
        )
    if not np.isfinite(y).all():
        raise InputError("the validation rows are not all finite numbers.")
    return x, y


def _numbers(
    train: GivenArray, valid: GivenArray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Number the classes of the validation rows; -1 is a class that they lack."""
    mine, names = as_array(train), as_array(valid)
    if (len(mine), len(names)) != shape:
        raise InputError(
            f"labels must be one per row, {shape[0]} and {shape[1]}, got {len(mine)} "
            f"and {len(names)}."
        )
    names, theirs = np.unique(names, return_inverse=True)
    place = np.minimum(np.searchsorted(names, mine), len(names) - 1)
    place = np.where(names[place] == mine, place, -1)
    if np.all(place < 0):
        raise InputError(
            "no training row has a class of the validation rows, so there is no "
            "reward: check that both sets name their classes alike."
        )
    return place, theirs


def _products(
    x: np.ndarray,
    towards: Float64[np.ndarray, "classes dim"],
    classes: Int[np.ndarray, " train"],
    less: Float64[np.ndarray, " classes"] | float = 0.0,
) -> Float32[np.ndarray, " train"]:
    """Multiply each row with the vector of its class, which takes something off."""
    less = np.broadcast_to(less, len(towards))
    found, first = np.zeros(len(x), np.float32), 0
    for part in chunks(x):
        c = classes[first : first + len(part)]
        some = np.einsum("id,id->i", part.astype(np.float64), towards[c]) - less[c]
        found[first : first + len(part)] = np.where(c < 0, 0, some)
        first += len(part)
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
