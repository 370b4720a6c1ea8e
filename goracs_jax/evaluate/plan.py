"""What a task computes for its test examples, and the plan of click prediction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from goracs_jax.evaluate.ctr import Questions, ask, read_answers, yes_probabilities
from goracs_jax.evaluate.metrics import (
    Bootstrap,
    Estimate,
    auc,
    check_classes,
    log_likelihoods,
    means,
)
from goracs_jax.evaluate.outcomes import LIKELY
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.lower import LowerTable
from goracs_jax.models import Decoder
from goracs_jax.runs.opened import Llm, Pool
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.stages import Arrays, Stage

#: Metrics with their intervals, and a record of predictions per example.
Judgement = tuple[dict[str, Estimate], Iterable[dict]]


class Plan(NamedTuple):
    """The stages to run, how their arrays are judged, and sizes to report."""

    stages: Sequence[Stage]
    judge: Callable[[Mapping[str, Arrays], Bootstrap], Judgement]
    sizes: Mapping[str, int]
    rows: int  # texts for which arrays are stored


def plan_ctr(pool: Pool, llm: Llm, lower: LowerTable | None = None) -> Plan:
    """Plan click prediction: one forward pass per prompt; AUC and log likelihood.

    Args:
        pool: The test examples.
        llm: The model.
        lower: What the layers below all adapters make of the prompts, if it was kept.

    Raises:
        InputError: An output is neither Yes nor No, or all are the same.
    """
    positive = read_answers(pool.examples)
    check_classes(positive)

    @cache
    def prepare() -> tuple[Decoder, Questions]:
        decoder, tokenizer = llm.load()
        context = decoder.config.max_positions
        return decoder, ask(pool.examples, tokenizer, context=context)

    def compute(mapper: Mapper) -> Arrays:
        return {"scores": yes_probabilities(*prepare(), mapper=mapper, lower=lower)}

    def judge(arrays: Mapping[str, Arrays], bootstrap: Bootstrap) -> Judgement:
        scores = arrays["answers"]["scores"]
        predictions = (
            {"example": i, "label": "Yes" if label else "No", "score": float(score)}
            for i, (label, score) in enumerate(zip(positive, scores, strict=True))
        )
        likely = {LIKELY: log_likelihoods(positive, scores)}
        area = {"AUC": auc(positive, scores, bootstrap)}
        return area | means(likely, bootstrap), predictions

    inputs = {"test": pool.sha256, **llm.identity}
    stage = Stage("answers", inputs, compute, prepare, revision_of("answers"))
    sizes = {"Yes": int(positive.sum()), "No": int((~positive).sum())}
    return Plan([stage], judge, sizes, len(positive))
