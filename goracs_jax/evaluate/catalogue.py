"""The items that are ranked, and which of them stand beside each test example."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.data.examples import Example, read_records
from goracs_jax.errors import InputError
from goracs_jax.evaluate.metrics import ranks

#: No candidate: rows with fewer negatives than others end with it.
NONE = -1


class Catalogue(NamedTuple):
    """All items, and their titles without repetitions.

    `title_of` leads from an item to its title: items may share one.
    """

    row_of: dict[str, int]  # item id -> row of title_of
    title_of: Int[np.ndarray, " items"]
    titles: list[str]


class Candidates(NamedTuple):
    """Items to rank for each example: the target in column 0, negatives behind."""

    items: Int[np.ndarray, "examples candidates"]  # rows of the catalogue, or NONE
    answers: list[list[str]]  # the output with each candidate's title in it
    quotes: int  # quotation marks that an answer has around its title


def read_catalogue(path: Path) -> Catalogue:
    """Read items.jsonl: lines with item_id and title.

    Raises:
        InputError: The first thing that is wrong, with its place.
    """
    row_of: dict[str, int] = {}
    titles = []
    for record, place in read_records(path):
        identity, title = record.get("item_id"), record.get("title")
        if not isinstance(identity, str | int) or not isinstance(title, str):
            raise InputError(
                f"{place}: an item needs item_id (a string or a number) and title (a "
                f"string), got {record!r:.60}."
            )
        if not title.strip():
            raise InputError(f"{place}: the title is empty: leave the item out.")
        if str(identity) in row_of:
            raise InputError(f"{place}: item_id {identity!r} stands there twice.")
        row_of[str(identity)] = len(titles)
        titles.append(title)
    unique, title_of = np.unique(titles, return_inverse=True)
    return Catalogue(row_of, title_of, unique.tolist())


def read_candidates(examples: Sequence[Example], catalogue: Catalogue) -> Candidates:
    """Find the target and the negatives of each example, and write their answers.

    Args:
        examples: Records with target (an item_id) and negatives (a list of them),
            whose output contains the target's title.
        catalogue: The items.

    Returns:
        The candidates.

    Raises:
        InputError: A key is missing, an item unknown, the target among its own
            negatives, a negative repeated, or the output without the target's title.
    """
    rows, answers, quotes = [], [], set()
    for example in examples:
        row = _rows(example, catalogue)
        titles = [catalogue.titles[catalogue.title_of[item]] for item in row]
        output = example.record["output"]
        if titles[0] not in output:
            raise InputError(
                f"{example.place}: the output does not contain the target's title "
                f"{titles[0]!r}: prepare test file and items together."
            )
        before, _, after = output.rpartition(titles[0])
        rows.append(row)
        answers.append([before + title + after for title in titles])
        quotes.add((before + after).count('"'))
    if len(quotes) > 1:
        raise InputError(
            "titles are quoted in some outputs and not in others: write all alike."
        )
    items = np.full((len(rows), max(map(len, rows))), NONE)
    for slots, row in zip(items, rows, strict=True):
        slots[: len(row)] = row
    return Candidates(items, answers, quotes.pop())


def _rows(example: Example, catalogue: Catalogue) -> list[int]:
    record, place = example
    negatives = record.get("negatives")
    if "target" not in record or not isinstance(negatives, list) or not negatives:
        raise InputError(
            f"{place}: seqrec needs target (an item_id) and negatives (a list of "
            "item_ids): make the file with goracs prepare."
        )
    names = [str(identity) for identity in [record["target"], *negatives]]
    for name in names:
        if name not in catalogue.row_of:
            raise InputError(f"{place}: item {name!r} is not among the items.")
    if len(set(names)) < len(names):
        raise InputError(
            f"{place}: an item stands twice among the target and its negatives."
        )
    return [catalogue.row_of[name] for name in names]


def sampled_ranks(
    distances: Float[np.ndarray, "examples candidates"],
    items: Int[np.ndarray, "examples candidates"],
    catalogue: Catalogue,
) -> Int[np.ndarray, " examples"]:
    """Ranks of the targets among their negatives; see `metrics.ranks`."""
    titles = catalogue.title_of[items]
    there = items != NONE
    is_target = (titles == titles[:, :1]) & there
    return ranks(np.where(there, distances, np.inf), is_target)


def full_ranks(
    distances: Float[np.ndarray, "examples titles"],
    items: Int[np.ndarray, "examples candidates"],
    catalogue: Catalogue,
) -> Int[np.ndarray, " examples"]:
    """Ranks of the targets among all items; an item that shares a title counts too."""
    title_of = catalogue.title_of
    is_target: Bool[np.ndarray, "examples items"] = (
        title_of[None, :] == title_of[items[:, :1]]
    )
    return ranks(distances[:, title_of], is_target)
