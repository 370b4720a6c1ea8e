"""Examples as Alpaca records, with what an evaluation needs beside the texts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from goracs_jax.data.splits import Log, Rows
from goracs_jax.llm.prompts import TEMPLATES, Task, Template, ctr_record, seqrec_record


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How an example becomes text."""

    task: Task = "seqrec"
    noun: str = "movie"
    """What an item is called."""
    history: int = 10
    """Most titles of a history, the latest ones."""
    like_above: float = 3.0
    """A rating above it means that the user liked the item."""
    template: Template | None = None
    """The wording; where left out, that of `TEMPLATES`."""

    @property
    def texts(self) -> Template:
        """The wording, given or not."""
        return self.template or TEMPLATES[self.task]


def records(log: Log, rows: Rows, wording: Wording) -> Iterator[dict]:
    """The records of some examples, in their order.

    Args:
        log: The interactions.
        rows: The examples.
        wording: How they become text.

    Yields:
        instruction, input, output; user and target (ids), timestamp (seconds), and for
        ctr the rating.
    """
    template = wording.texts
    columns = (log.user, log.item, log.rating, log.timestamp)
    # Lists of Python numbers: one at a time, those of NumPy are slow.
    for row, user, target, rating, time in zip(
        rows.tolist(), *(column[rows].tolist() for column in columns), strict=True
    ):
        past = log.history(row, wording.history)
        titles = [log.titles[item] for item in log.item[past].tolist()]
        title = log.titles[target]
        ids = {"user": log.user_ids[user], "target": log.item_ids[target]}
        if wording.task == "seqrec":
            texts = seqrec_record(titles, title, wording.noun, template)
            yield texts | ids | {"timestamp": time}
        else:
            liked = (log.rating[past] > wording.like_above).tolist()
            history = list(zip(titles, liked, strict=True))
            asked = (title, rating > wording.like_above)
            texts = ctr_record(history, asked, wording.noun, template)
            yield texts | ids | {"timestamp": time, "rating": rating}


def with_negatives(
    log: Log, made: Iterable[dict], drawn: Iterable[Int[np.ndarray, " negatives"]]
) -> Iterator[dict]:
    """Records with the ids of the items that were drawn for each, under `negatives`."""
    for record, items in zip(made, drawn, strict=True):
        yield record | {"negatives": [log.item_ids[item] for item in items.tolist()]}


def item_records(log: Log) -> Iterator[dict]:
    """item_id and title of every item, in the order of the ids."""
    for item_id, title in zip(log.item_ids, log.titles, strict=True):
        yield {"item_id": item_id, "title": title}
