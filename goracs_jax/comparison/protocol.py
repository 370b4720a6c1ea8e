"""What a table says of the protocol: what was drawn, cut, equal, tuned, and trivial."""

from collections.abc import Sequence
from typing import NamedTuple

from goracs_jax.comparison.beside import without_a_model
from goracs_jax.comparison.design import FULL
from goracs_jax.comparison.inputs import CompareInputs
from goracs_jax.comparison.tuning import Tuned
from goracs_jax.settings import Compare


class Protocol(NamedTuple):
    """Lines to stand below the table, and the learning rates that were tuned."""

    notes: list[str]
    tuned: Sequence[Tuned]

    @classmethod
    def of(
        cls, settings: Compare, inputs: CompareInputs, tuned: Sequence[Tuned]
    ) -> "Protocol":
        """Say in words what the flags asked for, and what is reached without a model.

        Args:
            settings: The flags of the comparison.
            inputs: Its files.
            tuned: The learning rates that are known.
        """
        s, notes = settings, []
        if s.split_valid:
            notes.append(_split(inputs))
        if s.draw_train is not None or s.draw_valid is not None:
            drawn = (
                f"{len(pool.examples) if count is None else count} of "
                f"{len(pool.examples)} {name} examples"
                for pool, count, name in (
                    (inputs.train, s.draw_train, "training"),
                    (inputs.valid, s.draw_valid, "validation"),
                )
            )
            notes.append(
                f"Each seed draws {' and '.join(drawn)}. Seconds of embeddings are its "
                "share of those of all examples, by tokens."
            )
        if s.tokens is not None:
            notes.append(
                f"Each model is trained on {s.tokens} tokens, to within a batch: the "
                "number of steps follows from the lengths of its examples."
            )
        if tuned:
            notes.append(_rates(s, tuned))
        if any(inputs.leaked.counts.values()):
            notes.append(inputs.leaked.text.capitalize() + ".")
        units = inputs.bootstrap.units
        pools, items = (inputs.train, inputs.test), inputs.judging.items
        return cls([*notes, without_a_model(s.task, *pools, items, units)], tuned)


def _split(inputs: CompareInputs) -> str:
    """Say which examples are the target, and which are judged."""
    target = (
        f"The target is half of the validation users ({len(inputs.valid.examples)} "
        "examples), which decide all that validation decides. "
    )
    if inputs.judged is None:
        return target + (
            "The other half is left out, because it lacks what test examples have "
            "(user, or target and negatives): the test examples alone are judged."
        )
    return target + (
        f"The other {inputs.judged} are judged with the test examples: nothing that "
        "is judged has chosen."
    )


def _rates(s: Compare, tuned: Sequence[Tuned]) -> str:
    """Say which learning rates were chosen, and by what."""
    chosen = []
    for each in tuned:
        whose = FULL if each.method == FULL else f"budget {each.budget}"
        chosen.append(f"{each.learning_rate:g} for {whose}")
    rates = ", ".join(f"{rate:g}" for rate in s.tune_learning_rate or ())
    return (
        f"Learning rates: {'; '.join(chosen)}, of {rates}, by the mean validation loss "
        "of random (full: by its own) over seeds that are not in the table. Tuning is "
        "not charged."
    )
