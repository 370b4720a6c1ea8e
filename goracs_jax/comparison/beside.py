"""What is reached without a model, beside the table of a comparison."""

from pathlib import Path

from goracs_jax.comparison.table import headline
from goracs_jax.errors import InputError
from goracs_jax.evaluate.baselines import ctr_baselines, seqrec_baselines
from goracs_jax.evaluate.catalogue import Catalogue, read_catalogue
from goracs_jax.evaluate.ctr import read_answers
from goracs_jax.evaluate.metrics import Units
from goracs_jax.llm.prompts import Task
from goracs_jax.runs.opened import Pool


def without_a_model(
    task: Task, train: Pool, test: Pool, items: Path, units: Units
) -> str:
    """Say in a line what the test examples give to scores that need no model.

    Args:
        task: The task of the examples.
        train: The training pool.
        test: The test examples.
        items: The file of all items; it may be missing for ctr.
        units: The user of each test example.

    Returns:
        The headline metrics of each baseline, or what is missing for all of them.
    """
    known = _catalogue(items)
    records = [example.record for example in test.examples]
    found = {}
    if task == "ctr":
        found = ctr_baselines(records, read_answers(test.examples), known, units)
    elif known:
        pool = [example.record for example in train.examples]
        found = seqrec_baselines(pool, records, known)
    if not found:
        return (
            "What is reached without a model is not known: the examples have no "
            f"`liked` or `history`, and {items} no `interactions` or `mean_rating`, as "
            "goracs prepare writes them."
        )
    said = []
    for name, values in found.items():
        shown = headline(list(values))
        means = ", ".join(f"{metric} {values[metric].mean():.4f}" for metric in shown)
        said.append(f"{name} ({means})")
    return (
        f"Without a model: {'; '.join(said)}. Ratings and popularity are those of all "
        f"training interactions ({items.name})."
    )


def _catalogue(items: Path) -> Catalogue | None:
    """Read the items; None where there is no file of them, or another one."""
    try:
        return read_catalogue(items)
    except InputError:
        return None
