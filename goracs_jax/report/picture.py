"""The picture and the table of a run."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.table import Table
from sklearn.decomposition import PCA

from goracs_jax.selection.problem import Selection

# Points drawn of each cloud: more only make the picture slow and grey.
DRAWN = 5_000


class Row(NamedTuple):
    """One method in the table."""

    method: str
    objective: float  # POO, exact, in the units of C
    lower_bound: float  # minus infinity where none was computed
    mean_distance: float  # of a validation point to its nearest selected row
    mean_grad_norm: float
    seconds: float


def table(rows: Sequence[Row], names: str = "method") -> Table:
    """A table of methods, or of what else `names` says, for the terminal.

    >>> table([Row("random", 0.5, -np.inf, 1.0, 2.0, 0.1)]).row_count
    1
    """
    out = Table()
    out.add_column(names)
    for name in (
        "POO exact",
        "lower bound",
        "mean distance",
        "mean gradient norm",
        "seconds",
    ):
        out.add_column(name, justify="right")
    for row in rows:
        numbers = [
            row.objective,
            row.lower_bound,
            row.mean_distance,
            row.mean_grad_norm,
        ]
        cells = [f"{x:.4f}" if np.isfinite(x) else "-" for x in numbers]
        out.add_row(row.method, *cells, f"{row.seconds:.1f}")
    return out


def principal_plane(
    train: Float[np.ndarray, "train dim"], valid: Float[np.ndarray, "valid dim"]
) -> tuple[Float[np.ndarray, "train 2"], Float[np.ndarray, "valid 2"]]:
    """Both clouds on the two axes along which they vary most (PCA of their union).

    >>> principal_plane(np.eye(3), np.eye(3))[0].shape
    (3, 2)
    """
    # A column of zeros is a second axis where there is only one.
    wide = lambda x: np.pad(x.astype(np.float64), [(0, 0), (0, x.shape[1] == 1)])
    thin = np.concatenate([wide(_thin(train)), wide(_thin(valid))])
    with np.errstate(invalid="ignore"):  # shares of a variance of zero, not used
        pca = PCA(n_components=2, random_state=0).fit(thin)
    return pca.transform(wide(train)), pca.transform(wide(valid))


def _thin(points: np.ndarray) -> np.ndarray:
    return points[:: max(1, len(points) // DRAWN)]


def figure(
    *,
    train: Float[np.ndarray, "train dim"],
    valid: Float[np.ndarray, "valid dim"],
    grad_norms: Float[np.ndarray, " train"] | None,
    chosen: Mapping[str, Selection],
) -> Figure:
    """The picture of a selection: the clouds, the descent of POO, the norms.

    Args:
        train: x_i.
        valid: y_j.
        grad_norms: g_i, or None where lambda is 0.
        chosen: Selections by method: the coreset first, then what it is compared with.

    Returns:
        A figure of three panels.
    """
    (method, coreset), *rest = chosen.items()
    others = dict(rest)
    indices = coreset.indices
    descent = [step.objective for step in coreset.trace]
    picture = Figure(figsize=(15, 4.6), layout="constrained")
    clouds, steps, norms = picture.subplots(1, 3, width_ratios=[1.25, 1, 1])

    on_train, on_valid = principal_plane(train, valid)
    clouds.scatter(
        *_thin(on_valid).T,
        s=10,
        c="#9cc3ec",
        lw=0,
        label=f"validation, {len(valid):,}",
    )
    clouds.scatter(
        *_thin(on_train).T, s=8, c="#5b606b", lw=0, label=f"training, {len(train):,}"
    )
    clouds.scatter(
        *on_train[indices].T,
        s=34,
        c="#d1442f",
        ec="white",
        lw=0.6,
        label=f"coreset, {len(indices):,}",
    )
    clouds.set(title="Embeddings on their two principal axes", xticks=[], yticks=[])
    clouds.legend(loc="best", framealpha=0.9)

    # What it is compared with stands on the left, the rounds of the coreset follow.
    levels = [other.objective for other in others.values()] + descent
    steps.plot(levels, "--", c="#c9ccd3", lw=1)
    first = len(others)
    for at, name in enumerate(others):
        steps.plot([at], levels[at : at + 1], "o", c="#8a8f99", label=f"{name} subset")
    steps.plot(range(first, len(levels)), descent, "o-", c="#d1442f", label=method)
    if np.isfinite(coreset.lower_bound):
        floor = {"c": "#3a7d44", "ls": ":", "label": "no subset can be below"}
        steps.axhline(coreset.lower_bound, **floor)
    # Beyond a few steps only the ends have room for their values.
    every = max(1, len(descent) - 1) if len(levels) > 8 else 1
    marked = [*range(first), *range(first, len(levels), every)]
    for x in marked:
        steps.annotate(
            f"{levels[x]:.4f}",
            (x, levels[x]),
            (0, 7),
            textcoords="offset points",
            fontsize=8,
        )
    steps.set(title="Objective POO, lower is better", xlabel="improvement")
    rounds = map(str, range(1, len(descent)))
    ticks = [*others, "start", *rounds]
    steps.set_xticks(marked, [ticks[x] for x in marked])
    steps.margins(x=0.15, y=0.15)
    steps.legend(loc="best")

    if grad_norms is None:
        norms.text(0.5, 0.5, "lambda = 0:\nno gradient norms", ha="center", va="center")
        norms.set_axis_off()
    else:
        low, high = grad_norms.min(), grad_norms.max()
        margin = 1e-3 * high  # norms may all be equal
        bins = np.linspace(low - margin, high + margin, 31)
        for values, colour, name in (
            (grad_norms, "#b8bcc4", "all"),
            (grad_norms[indices], "#d1442f", "chosen"),
        ):
            share = np.full(len(values), 100 / len(values))
            norms.hist(
                values,
                bins,
                weights=share,
                color=colour,
                alpha=0.7,
                label=f"{name}, mean {values.mean():.3g}",
            )
        norms.set(title="Gradient norms", xlabel="norm", ylabel="% of examples")
        norms.legend(loc="best")

    return picture
