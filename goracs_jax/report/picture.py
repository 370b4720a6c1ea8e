"""The picture and the table of a selection."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from goracs_jax.cost import chunks
from goracs_jax.selection.problem import Selection

# Points that are drawn of each cloud; more make the picture slow and hide each other.
DRAWN = 5_000
# Dimensions beside those that are drawn, and rounds, in which directions are found.
SPARE, ITERATIONS = 10, 8


class Row(NamedTuple):
    """One method, or one budget and lambda, in the table."""

    method: str
    objective: float  # exact POO, in the units of C
    lower_bound: float  # minus infinity where none was computed
    mean_distance: float  # from a validation point to its nearest selected row
    mean_grad_norm: float
    seconds: float


def table(rows: Sequence[Row], names: str = "method") -> Table:
    """Make the table of results for the terminal.

    Args:
        rows: One row per method, or per budget and lambda.
        names: Header of the first column.

    Returns:
        The table; numbers that are unknown are shown as "-".

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
    """Project both clouds onto the first two principal components of their union.

    Args:
        train: Training embeddings.
        valid: Validation embeddings.

    Returns:
        The coordinates of the training and the validation embeddings.

    >>> principal_plane(np.eye(3), np.eye(3))[0].shape
    (3, 2)
    """
    thin = np.concatenate([_thin(train), _thin(valid)]).astype(np.float64)
    centre = thin.mean(0)
    plane = _principal_directions(thin - centre, 2)
    # Piece by piece: of a large pool, float64 is some times the memory of its rows.
    drawn = lambda x: np.concatenate(
        [(part.astype(np.float64) - centre) @ plane for part in chunks(x)]
    )
    # If the clouds have one dimension, a column of zeros becomes the second axis.
    wide = lambda x: np.pad(x, [(0, 0), (0, 2 - x.shape[1])])
    return wide(drawn(train)), wide(drawn(valid))


def _principal_directions(
    points: Float[np.ndarray, "rows dim"], k: int
) -> Float[np.ndarray, "dim k"]:
    """Find the first k right singular vectors by subspace iteration.

    Halko, Martinsson and Tropp (SIAM Review 2011); scikit-learn's PCA, which does the
    same for many dimensions, takes a second and more to import.
    """
    dim = points.shape[1]
    basis = np.random.default_rng(0).normal(size=(dim, min(dim, k + SPARE)))
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(points.T @ (points @ basis))
    _, _, turned = np.linalg.svd(points @ basis, full_matrices=False)
    return basis @ turned[:k].T


def _thin(points: np.ndarray) -> np.ndarray:
    return points[:: max(1, len(points) // DRAWN)]


def figure(
    *,
    train: Float[np.ndarray, "train dim"],
    valid: Float[np.ndarray, "valid dim"],
    weighed: tuple[str, Float[np.ndarray, " train"] | None],
    chosen: Mapping[str, Selection],
    curve: Sequence[tuple[int, float]] | None = None,
) -> Figure:
    """Draw a selection: the clouds, the descent of the objective, and the scores.

    Args:
        train: Training embeddings x_i.
        valid: Validation embeddings y_j.
        weighed: What lambda weighs: its name, such as "gradient norm", and one number
            per training row, or None if lambda is 0.
        chosen: Selections by method: first the coreset, then those it is compared with.
        curve: POO against held-out validation by budget, where the budget was found.

    Returns:
        A figure with three panels, and a fourth for a curve.
    """
    (method, coreset), *others = chosen.items()
    picture = Figure(figsize=(15, 4.6), layout="constrained")
    widths = [1.25, 1, 1, *([1] if curve else [])]
    clouds, steps, scores, *more = picture.subplots(1, len(widths), width_ratios=widths)
    _draw_clouds(clouds, train, valid, coreset.indices)
    _draw_descent(steps, method, coreset, dict(others))
    _draw_weighed(scores, *weighed, coreset.indices)
    if curve:
        _draw_curve(more[0], curve, len(coreset.indices))
    return picture


def _draw_curve(axes: Axes, curve: Sequence[tuple[int, float]], budget: int):
    axes.plot(*zip(*curve, strict=True), ".-", color="#4a5568")
    axes.axvline(budget, color="#d1442f", label=f"budget {budget}")
    axes.set(title="Held-out validation", xlabel="budget", ylabel="POO", xscale="log")
    axes.legend(loc="best")


def _draw_clouds(axes: Axes, train: np.ndarray, valid: np.ndarray, indices: np.ndarray):
    on_train, on_valid = principal_plane(train, valid)
    axes.scatter(
        *_thin(on_valid).T,
        s=10,
        c="#9cc3ec",
        lw=0,
        label=f"validation, {len(valid):,}",
    )
    axes.scatter(
        *_thin(on_train).T, s=8, c="#5b606b", lw=0, label=f"training, {len(train):,}"
    )
    axes.scatter(
        *on_train[indices].T,
        s=34,
        c="#d1442f",
        ec="white",
        lw=0.6,
        label=f"coreset, {len(indices):,}",
    )
    axes.set(title="Embeddings on their two principal axes", xticks=[], yticks=[])
    axes.legend(loc="best", framealpha=0.9)


def _draw_descent(
    axes: Axes, method: str, coreset: Selection, others: Mapping[str, Selection]
):
    # The methods that the coreset is compared with are on the left, its rounds follow.
    descent = [step.objective for step in coreset.trace]
    levels = [other.objective for other in others.values()] + descent
    axes.plot(levels, "--", c="#c9ccd3", lw=1)
    first = len(others)
    for at, name in enumerate(others):
        axes.plot([at], levels[at : at + 1], "o", c="#8a8f99", label=f"{name} subset")
    axes.plot(range(first, len(levels)), descent, "o-", c="#d1442f", label=method)
    if coreset.lower_bound is not None:
        axes.axhline(
            coreset.lower_bound, c="#3a7d44", ls=":", label="no subset can be below"
        )
    # With many rounds, only the first and the last have room for their values.
    every = max(1, len(descent) - 1) if len(levels) > 8 else 1
    marked = [*range(first), *range(first, len(levels), every)]
    for x in marked:
        axes.annotate(
            f"{levels[x]:.4f}",
            (x, levels[x]),
            (0, 7),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set(title="Objective POO, lower is better", xlabel="improvement")
    rounds = map(str, range(1, len(descent)))
    ticks = [*others, "start", *rounds]
    axes.set_xticks(marked, [ticks[x] for x in marked])
    axes.margins(x=0.15, y=0.15)
    axes.legend(loc="best")


def _draw_weighed(
    axes: Axes, name: str, scores: np.ndarray | None, indices: np.ndarray
):
    if scores is None:
        axes.text(0.5, 0.5, f"lambda = 0:\nno {name}s", ha="center", va="center")
        axes.set_axis_off()
        return
    low, high = scores.min(), scores.max()
    # Without a margin, equal numbers would give bins of width zero.
    margin = 1e-3 * np.abs(scores).max()
    bins = np.linspace(low - margin, high + margin, 31)
    for values, colour, whose in (
        (scores, "#b8bcc4", "all"),
        (scores[indices], "#d1442f", "chosen"),
    ):
        share = np.full(len(values), 100 / len(values))
        axes.hist(
            values,
            bins,
            weights=share,
            color=colour,
            alpha=0.7,
            label=f"{whose}, mean {values.mean():.3g}",
        )
    axes.set(title=f"{name.capitalize()}s", xlabel=name, ylabel="% of examples")
    axes.legend(loc="best")
