"""Settings of what the chosen rows must meet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from goracs_jax.settings.flags import Flag
from goracs_jax.settings.methods import list_heeding


@dataclass(frozen=True, kw_only=True)
class WishFlags:
    """What the chosen rows must meet, and how much each validation row counts."""

    group: ClassVar[str] = "wishes"

    include: Annotated[Path | None, Flag(more=list_heeding)] = None
    """Rows of the training file that must be chosen, numbers from 0: an array of
    integers, such as an indices.npy, or a .txt file with one on each line."""
    exclude: Path | None = None
    """Rows of the training file that must not be chosen, likewise."""
    trained: Path | None = None
    """Rows that are trained on already, likewise: the n are chosen beside them, and POO
    and its bound are those of both together."""
    valid_weights: Path | None = None
    """How much each validation example counts, floats [M] >= 0."""
    row_costs: Path | None = None
    """What each training example costs, such as its tokens, numbers [N] >= 0."""
    cost_limit: float | None = None
    """The most that the chosen examples may cost together."""
    groups: Path | None = None
    """Group of each training example, such as its source, topic or user: a file of
    integers or strings [N], or a key that all records of --train have."""
    group_min: Annotated[
        tuple[str, ...] | None, Flag(each=str, metavar="GROUP=COUNT")
    ] = None
    """The least number of examples that are chosen of some groups."""
    group_max: Annotated[
        tuple[str, ...] | None, Flag(each=str, metavar="GROUP=COUNT")
    ] = None
    """The most examples that are chosen of some groups."""
    apart: float | None = None
    """No two chosen examples are closer than this, in the units of the embeddings: of
    near duplicates one is chosen at most."""
