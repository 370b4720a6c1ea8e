"""Turn examples into Alpaca records, with the ids that an evaluation needs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from goracs_jax.data.splits import Log, Rows
from goracs_jax.llm.prompts import TEMPLATES, Task, Template, ctr_record, seqrec_record


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The settings that turn an example into text."""

    task: Task = "seqrec"
    noun: str = "movie"
    """The word for an item."""
    history: int = 10
    """Largest number of titles in a history; the latest ones are kept."""
    like_above: float = 3.0
    """Ratings above this value count as liked."""
    template: Template | None = None
    """The prompt's texts; None stands for the task's entry in `TEMPLATES`."""

    @property
    def texts(self) -> Template:
        """The template, or the default of the task."""
        return self.template or TEMPLATES[self.task]


def records(log: Log, rows: Rows, wording: Wording) -> Iterator[dict]:
    """Make the records of examples, in the order of `rows`.

    Args:
        log: The interactions.
        rows: The examples, as rows of `log`.
        wording: The settings that turn an example into text.

    Yields:
        One record per example: instruction, input, output, the ids user and target, the
        ids of the history, the timestamp in seconds and, for ctr, the rating and which
        items of the history were liked.
    """
    template = wording.texts
    columns = (log.user, log.item, log.rating, log.timestamp)
    # Reading NumPy arrays element by element is slow, so they become lists first.
    for row, user, target, rating, time in zip(
        rows.tolist(), *(column[rows].tolist() for column in columns), strict=True
    ):
        past = log.history(row, wording.history)
        titles = [log.titles[item] for item in log.item[past].tolist()]
        title = log.titles[target]
        ids = {"user": log.user_ids[user], "target": log.item_ids[target]}
        ids["history"] = [log.item_ids[item] for item in log.item[past].tolist()]
        if wording.task == "seqrec":
            texts = seqrec_record(titles, title, wording.noun, template)
            yield texts | ids | {"timestamp": time}
        else:
            liked = (log.rating[past] > wording.like_above).tolist()
            history = list(zip(titles, liked, strict=True))
            asked = (title, rating > wording.like_above)
            texts = ctr_record(history, asked, wording.noun, template)
            yield texts | ids | {"liked": liked, "timestamp": time, "rating": rating}


def with_negatives(
    log: Log, made: Iterable[dict], drawn: Iterable[Int[np.ndarray, " negatives"]]
) -> Iterator[dict]:
    """Add the ids of the drawn items to each record, under the key `negatives`.

    Args:
        log: The interactions.
        made: The records; see `records`.
        drawn: The negatives of each record; see `negatives.draw_negatives`.

    Yields:
        The records with their negatives.
    """
    for record, items in zip(made, drawn, strict=True):
        yield record | {"negatives": [log.item_ids[item] for item in items.tolist()]}


def item_records(log: Log, rows: Rows) -> Iterator[dict]:
    """Make one record per item, with item_id, title and its popularity, sorted by id.

    Args:
        log: The interactions.
        rows: The interactions that training may know, as rows of `log`.

    Yields:
        The records of items.jsonl. `interactions` counts those of `rows`, and
        `mean_rating` is the mean of their ratings, where there are any.
    """
    n_items, items, ratings = len(log.item_ids), log.item[rows], log.rating[rows]
    rated = ~np.isnan(ratings)
    times = np.bincount(items, minlength=n_items).tolist()
    known = np.bincount(items[rated], minlength=n_items).tolist()
    sums = np.bincount(items[rated], ratings[rated], n_items).tolist()
    columns = (log.item_ids, log.titles, times, known, sums)
    for item_id, title, count, ratings_of, total in zip(*columns, strict=True):
        record = {"item_id": item_id, "title": title, "interactions": count}
        yield record | ({"mean_rating": total / ratings_of} if ratings_of else {})
