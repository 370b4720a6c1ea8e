"""The wishes of `goracs select`: from files and flags to what `make_wishes` takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from goracs_jax.cost import Cost, check_row_scores
from goracs_jax.errors import InputError
from goracs_jax.files import digest
from goracs_jax.inputs.array_files import Named, read_array
from goracs_jax.jobs.leakage import Kept
from goracs_jax.runs.opened import Pool
from goracs_jax.selection.method import Method
from goracs_jax.selection.select import check_heeds
from goracs_jax.selection.wishes import Wishes, keep_apart, row_wishes
from goracs_jax.selection.wishes.feasible import check_wishes
from goracs_jax.selection.wishes.given import check_radius
from goracs_jax.settings import Select

#: The flags that name rows.
ROWS = ("include", "exclude", "trained")


class Wished(NamedTuple):
    """What is wished for, as it was read."""

    given: Mapping[str, Any]  # arguments of `row_wishes`
    apart: float | int | None
    weights: Float[np.ndarray, " valid"] | None

    @property
    def identity(self) -> dict[str, str]:
        """What names the selections; nothing without wishes."""
        told = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in self._told}
        return {"wishes": digest(told)} if told else {}

    @property
    def _told(self) -> list[tuple[str, Any]]:
        all_ = {**self.given, "apart": self.apart, "weights": self.weights}
        return [(k, v) for k, v in all_.items() if v is not None]

    def of_rows(self, n_train: int) -> Wishes | None:
        """Make the wishes for which no embeddings are needed."""
        return row_wishes(n_train, **self.given)

    def of(self, cost: Cost) -> Wishes | None:
        """Make the wishes of the rows of a cost."""
        wishes = self.of_rows(cost.shape[0])
        return wishes if self.apart is None else keep_apart(wishes, cost, self.apart)

    def check(
        self, method: Method, shape: tuple[int, int], budgets: Sequence[int], by: bool
    ) -> None:
        """Refuse what can be known to fail before there are embeddings.

        Args:
            method: Which is to heed the wishes.
            shape: (N, M).
            budgets: Values of n.
            by: Whether the selection is label-aware.

        Raises:
            InputError: Wishes that do not fit the rows, or that no subset meets.
        """
        if self.weights is not None:
            check_row_scores(
                self.weights, shape[1], "validation weights", side="validation"
            )
        if self.apart is not None:
            check_radius(self.apart)
        wishes = self.of_rows(shape[0])
        any_ = wishes is not None or self.apart is not None
        check_heeds(method, any_, self.weights is not None, by)
        for budget in budgets:
            check_wishes(wishes, budget)


def read_wishes(s: Select, n_train: int, pool: Pool | None, kept: Kept) -> Wished:
    """Read the files of what is wished for.

    Args:
        s: The flags.
        n_train: Rows of the training file.
        pool: Its examples, where there are texts.
        kept: The rows that are selected from.

    Raises:
        InputError: A file or a flag that is wrong.
    """
    given: dict[str, Any] = {
        name: _kept_rows(name, read_rows(path, f"rows of --{name}"), n_train, kept)
        for name in ROWS
        if (path := getattr(s, name)) is not None
    }
    if s.row_costs is not None:
        costs = read_array(s.row_costs, "row costs", "numbers")
        if costs.dtype.kind not in "iuf":
            raise InputError(f"{s.row_costs}: the row costs must be numbers.")
        check_row_scores(costs, n_train, f"row costs of {s.row_costs}")
        given["row_costs"] = kept.take(costs)
    if s.groups is not None:
        given["groups"] = _groups(s.groups, n_train, pool, kept)
    for name in ("group_min", "group_max"):
        if (asked := getattr(s, name)) is not None:
            given[name] = _counts(asked, name)
    if s.cost_limit is not None:
        given["cost_limit"] = s.cost_limit
    weights = s.valid_weights
    if weights is not None:
        weights = np.array(read_array(weights, "validation weights", "numbers"))
        if weights.dtype.kind not in "iuf":
            raise InputError(f"{s.valid_weights}: the weights must be numbers.")
    return Wished(given, s.apart, weights)


def read_rows(path: Path, what: str) -> np.ndarray:
    """Read row numbers: an array of integers, or a text file with one on each line.

    Raises:
        InputError: There is no such file, or it has something else.
    """
    if path.suffix != ".txt":
        return np.array(read_array(path, what, "integers"))
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): give row numbers."
        ) from None
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(int(line))
            except ValueError:
                raise InputError(
                    f"{path}:{number}: {line.strip()[:40]!r} is no row number: write "
                    "one number from 0 on each line."
                ) from None
    return np.array(rows, np.int64)


def _kept_rows(name: str, rows: np.ndarray, n_train: int, kept: Kept) -> np.ndarray:
    """Return the numbers that rows of the file have among those that are kept."""
    row_wishes(n_train, **{name: rows})  # refuses what are no row numbers
    if kept.is_all:
        return rows
    asked = np.isin(np.arange(n_train), rows)
    dropped = asked.copy()
    dropped[kept.rows] = False
    if name != "exclude" and dropped.any():
        raise InputError(
            f"--{name} has row {dropped.argmax()}, which --leakage drop leaves out: "
            "take it out of one."
        )
    return np.flatnonzero(asked[kept.rows])


def _groups(given: Path, n_train: int, pool: Pool | None, kept: Kept) -> np.ndarray:
    """Read the groups of the kept rows from a file, or from a key of the records."""
    if pool is None or Named.of(given).path.exists():
        groups = read_array(given, "groups", "integers or strings")
        if groups.shape != (n_train,):
            raise InputError(
                f"{given} has groups of shape {list(groups.shape)}, and there are "
                f"{n_train} training rows: give one group per row."
            )
        return kept.take(groups)
    key = str(given)
    found = [example.record.get(key) for example in pool.examples]
    if any(not isinstance(value, str | int) for value in found):
        row = next(i for i, v in enumerate(found) if not isinstance(v, str | int))
        raise InputError(
            f"--groups {key} is no file, and example {row} of {pool.path} has no such "
            "key with a text or a whole number."
        )
    return np.array([str(value) for value in found])


def _counts(asked: Sequence[str], name: str) -> dict[str, int]:
    """Read GROUP=COUNT."""
    counts = {}
    for each in asked:
        group, equals, count = each.rpartition("=")
        if not equals or not count.isdecimal():
            raise InputError(
                f"--{name.replace('_', '-')} must be GROUP=COUNT, such as news=100, "
                f"got {each!r}."
            )
        counts[group] = int(count)
    return counts
