"""The catalogue of items, and the candidates that are ranked for each test example."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from goracs_jax.data.examples import Example, read_records
from goracs_jax.data.texts import MOST_CHARACTERS, is_blank
from goracs_jax.errors import InputError
from goracs_jax.evaluate.exposure import NONE as NONE
from goracs_jax.evaluate.metrics import ranks


class Catalogue(NamedTuple):
    """All items and their distinct titles, which several items may share.

    What is known of their popularity comes from training interactions alone, as
    `goracs prepare` counts them.
    """

    row_of: dict[str, int]  # from an item's id to its row
    title_of: Int[np.ndarray, " items"]  # each row's position in `titles`
    titles: list[str]  # sorted, without repetitions
    interactions: Int[np.ndarray, " items"] | None = (
        None  # None where not all are known
    )
    mean_rating: Float[np.ndarray, " items"] | None = None  # NaN where there is none


class Candidates(NamedTuple):
    """The items to rank for each example: the target first, then the negatives."""

    items: Int[np.ndarray, "examples candidates"]  # rows of the catalogue, or NONE
    answers: list[list[str]]  # each example's output, with every candidate's title
    around: list[tuple[str, str]]  # each output before and after the title
    quotes: int  # the most quotation marks of an answer; 0 if titles are not quoted


def read_catalogue(path: Path) -> Catalogue:
    """Read items.jsonl, whose records have the keys item_id and title.

    They may also have `interactions`, a count, and `mean_rating`.

    Args:
        path: The file.

    Returns:
        The catalogue, with items in the order of the file.

    Raises:
        InputError: The file cannot be read, a record lacks a key, a title is empty, or
            an item_id is repeated; the message names the place.
    """
    row_of: dict[str, int] = {}
    titles, counts, ratings = [], [], []
    for record, place, _ in read_records(path):
        identity, title = record.get("item_id"), record.get("title")
        if not isinstance(identity, str | int) or not isinstance(title, str):
            raise InputError(
                f"{place}: an item needs item_id (a string or a number) and title (a "
                f"string), got {record!r:.60}."
            )
        if is_blank(title):
            raise InputError(f"{place}: the title is empty: leave the item out.")
        if len(title) > MOST_CHARACTERS:
            raise InputError(
                f"{place}: the title has {len(title):,} characters, more than "
                f"{MOST_CHARACTERS:,}: cut it, or leave the item out."
            )
        if str(identity) in row_of:
            raise InputError(f"{place}: item_id {identity!r} is repeated: remove one.")
        row_of[str(identity)] = len(titles)
        titles.append(title)
        counts.append(record.get("interactions"))
        ratings.append(record.get("mean_rating"))
    unique, title_of = np.unique(titles, return_inverse=True)
    counted = all(isinstance(count, int) and count >= 0 for count in counts)
    rated = any(isinstance(rating, int | float) for rating in ratings)
    return Catalogue(
        row_of,
        title_of,
        unique.tolist(),
        np.array(counts) if counted else None,
        np.array(ratings, np.float64) if rated else None,
    )


def read_candidates(examples: Sequence[Example], catalogue: Catalogue) -> Candidates:
    """Find the target and the negatives of each example, and write their answers.

    Args:
        examples: Records with the keys target (an item_id) and negatives (a list of
            item_ids), whose output contains the target's title.
        catalogue: The items.

    Returns:
        The candidates of each example.

    Raises:
        InputError: A key is missing, an item is not in the catalogue, the target is
            among its own negatives, a negative is repeated, or an output does not
            contain the target's title.
    """
    rows, answers, around = [], [], []
    for example in examples:
        row = _rows(example, catalogue)
        titles = [catalogue.titles[catalogue.title_of[item]] for item in row]
        output = example.output
        if titles[0] not in output:
            raise InputError(
                f"{example.place}: the output does not contain the target's title "
                f"{titles[0]!r}: prepare test file and items together."
            )
        before, _, after = output.rpartition(titles[0])
        rows.append(row)
        answers.append([before + title + after for title in titles])
        around.append((before, after))
    quotes = {(before + after).count('"') for before, after in around}
    if len(quotes) > 1:
        raise InputError(
            "titles are quoted in some outputs but not in others: quote all or none."
        )
    items = np.full((len(rows), max(map(len, rows))), NONE)
    for slots, row in zip(items, rows, strict=True):
        slots[: len(row)] = row
    marks = quotes.pop()
    inside = max(title.count('"') for title in catalogue.titles)
    return Candidates(items, answers, around, marks + inside if marks else 0)


def _rows(example: Example, catalogue: Catalogue) -> list[int]:
    record, place = example.record, example.place
    negatives = record.get("negatives")
    if "target" not in record or not isinstance(negatives, list) or not negatives:
        raise InputError(
            f"{place}: seqrec needs target (an item_id) and negatives (a list of "
            "item_ids): make the file with goracs prepare."
        )
    names = [str(identity) for identity in [record["target"], *negatives]]
    for name in names:
        if name not in catalogue.row_of:
            raise InputError(
                f"{place}: item {name!r} is not among the items: add it there, or "
                "remove the example."
            )
    if len(set(names)) < len(names):
        raise InputError(
            f"{place}: an item is repeated among the target and its negatives: remove "
            "one."
        )
    return [catalogue.row_of[name] for name in names]


def sampled_ranks(
    distances: Float[np.ndarray, "examples candidates"],
    items: Int[np.ndarray, "examples candidates"],
    catalogue: Catalogue,
) -> Int[np.ndarray, " examples"]:
    """Rank each target among its negatives; see `metrics.ranks`.

    Args:
        distances: Distance of each candidate; the smallest ranks first.
        items: The candidates' rows in the catalogue, or NONE; the target comes first.
        catalogue: The items.

    Returns:
        One rank per example, from 0.
    """
    titles = catalogue.title_of[items]
    there = items != NONE
    is_target = (titles == titles[:, :1]) & there
    return ranks(np.where(there, distances, np.inf), is_target)


def full_ranks(
    distances: Float[np.ndarray, "examples titles"],
    items: Int[np.ndarray, "examples candidates"],
    catalogue: Catalogue,
) -> Int[np.ndarray, " examples"]:
    """Rank each target among all items of the catalogue; see `metrics.ranks`.

    Every item counts, also when it shares its title with others.

    Args:
        distances: Distance of each distinct title; the smallest ranks first.
        items: The candidates' rows in the catalogue; the target comes first.
        catalogue: The items.

    Returns:
        One rank per example, from 0.
    """
    title_of = catalogue.title_of
    is_target: Bool[np.ndarray, "examples items"] = (
        title_of[None, :] == title_of[items[:, :1]]
    )
    return ranks(distances[:, title_of], is_target)
