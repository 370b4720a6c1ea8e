"""The wishes of `goracs select`: from files and flags to what `make_wishes` takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from goracs_jax.cost import Cost, check_row_scores, check_weights
from goracs_jax.errors import InputError
from goracs_jax.files import digest
from goracs_jax.inputs.array_files import Named, read_array
from goracs_jax.runs.kept import Kept
from goracs_jax.runs.opened import Pool
from goracs_jax.selection.auto_budget import sizes_to_try
from goracs_jax.selection.checked import check_heeds
from goracs_jax.selection.method import Method
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
        self, method: Method, n_train: int, budgets: Sequence[int], by: bool
    ) -> None:
        """Refuse what can be known to fail before there are embeddings.

        Args:
            method: Which is to heed the wishes.
            n_train: N.
            budgets: Values of n; none where it is still to be found.
            by: Whether the selection is label-aware.

        Raises:
            InputError: Wishes that do not fit the rows, or that no subset meets.
        """
        if self.apart is not None:
            check_radius(self.apart)
        wishes = self.of_rows(n_train)
        any_ = wishes is not None or self.apart is not None
        check_heeds(method, any_, self.weights is not None, by)
        for budget in budgets or sizes_to_try(wishes, n_train):
            check_wishes(wishes, budget)


def read_wishes(s: Select, pool: Pool | None, sides: tuple[Kept, Kept]) -> Wished:
    """Read the files of what is wished for.

    Args:
        s: The flags.
        pool: The training examples, where there are texts.
        sides: The training and the validation rows that are used; the files have one
            entry for each row of the whole file.

    Raises:
        InputError: A file or a flag that is wrong.
    """
    train, valid = sides
    given: dict[str, Any] = {
        name: _kept_rows(name, read_rows(path, f"rows of --{name}"), train)
        for name in ROWS
        if (path := getattr(s, name)) is not None
    }
    if s.row_costs is not None:
        costs = _numbers(s.row_costs, "row costs", train)
        check_row_scores(costs, len(costs), f"row costs of {s.row_costs}")
        given["row_costs"] = costs
    if s.groups is not None:
        given["groups"] = _groups(s.groups, pool, train)
    for name in ("group_min", "group_max"):
        if (asked := getattr(s, name)) is not None:
            given[name] = _counts(asked, name)
    if s.cost_limit is not None:
        given["cost_limit"] = s.cost_limit
    weights = None
    if s.valid_weights is not None:
        weights = _numbers(s.valid_weights, "validation weights", valid, "validation")
        name = f"validation weights of {s.valid_weights}"
        check_weights(weights, len(weights), name)
    return Wished(given, s.apart, weights)


def _numbers(path: Path, what: str, kept: Kept, side: str = "training") -> np.ndarray:
    """Read a number for each row of a file, and take those of the rows used."""
    numbers = np.array(read_array(path, what, "numbers"))
    if numbers.dtype.kind not in "iuf":
        raise InputError(f"{path}: the {what} must be numbers.")
    return _of_kept(numbers, path, what, kept, side)


def _of_kept(
    values: np.ndarray, path: Path, what: str, kept: Kept, side: str = "training"
) -> np.ndarray:
    """Take the values of the rows used from those of all rows of a file."""
    if values.shape != (kept.of,):
        raise InputError(
            f"{path} has {what} of shape {list(values.shape)}, and there are {kept.of} "
            f"{side} rows: give one for each row."
        )
    return kept.take(values)


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


def _kept_rows(name: str, rows: np.ndarray, kept: Kept) -> np.ndarray:
    """Return the numbers that rows of the file have among those that are kept."""
    given: dict[str, Any] = {name: rows}
    row_wishes(kept.of, **given)  # refuses what are no row numbers
    if kept.is_all:
        return rows
    asked = np.isin(np.arange(kept.of), rows)
    dropped = asked.copy()
    dropped[kept.rows] = False
    if name != "exclude" and dropped.any():
        raise InputError(
            f"--{name} has row {dropped.argmax()}, which --leakage drop or --bad-rows "
            f"skip leaves out: take it out of --{name}."
        )
    return np.flatnonzero(asked[kept.rows])


def _groups(given: Path, pool: Pool | None, kept: Kept) -> np.ndarray:
    """Read the groups of the kept rows from a file, or from a key of the records."""
    if pool is None or Named.of(given).path.exists():
        groups = read_array(given, "groups", "integers or strings")
        return _of_kept(np.asarray(groups), given, "groups", kept)
    key = str(given)
    found = [example.record.get(key) for example in pool.examples]
    if any(not isinstance(value, str | int) for value in found):
        row = next(i for i, v in enumerate(found) if not isinstance(v, str | int))
        raise InputError(
            f"--groups {key} is no file, and {pool.examples[row].place} has no such "
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
        if group in counts:
            raise InputError(
                f"--{name.replace('_', '-')} has group {group} twice: give one number."
            )
        counts[group] = int(count)
    return counts
