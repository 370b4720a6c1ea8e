"""The revision of each kind of stage: raised when it changes by more than rounding."""

from collections.abc import Mapping

#: Revisions by stage: embeddings, gradient-norms, "selection METHOD", finetune,
#: answers, generation, grounding, likelihood. What is not listed has revision 1.
REVISIONS: Mapping[str, int] = {}


def revision_of(*stages: str) -> int:
    """Return the revision of a result of some stages, which rises with any of theirs.

    >>> revision_of("finetune")
    1
    """
    return 1 + sum(REVISIONS.get(stage, 1) - 1 for stage in stages)
