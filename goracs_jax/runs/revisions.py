"""The revision of each kind of stage: raised when it changes by more than rounding."""

from collections.abc import Mapping

#: Revisions by stage: embeddings, gradient-norms, "selection METHOD", finetune,
#: lower-states, answers, generation, grounding, likelihood. What is not listed has
#: revision 1.
REVISIONS: Mapping[str, int] = {
    "finetune": 2,  # order and dropout by content, not by position
    "generation": 2,  # on to the last quotation mark where titles have some inside
    "grounding": 2,  # of titles with such marks
    "selection goracs": 2,  # by prices first, annealed where they leave a gap
}


def revision_of(*stages: str) -> int:
    """Return the revision of a result of some stages, which rises with any of theirs.

    >>> revision_of("answers"), revision_of("answers", "finetune")
    (1, 2)
    """
    return 1 + sum(REVISIONS.get(stage, 1) - 1 for stage in stages)
