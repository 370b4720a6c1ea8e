"""What `goracs evaluate` computes for each task, as stages, and how it is judged."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from goracs_jax.errors import InputError
from goracs_jax.evaluate.catalogue import (
    NONE,
    Candidates,
    Catalogue,
    full_ranks,
    read_candidates,
    read_catalogue,
    sampled_ranks,
)
from goracs_jax.evaluate.ctr import Questions, ask, read_answers, yes_probabilities
from goracs_jax.evaluate.generation import ending, generate, prompt_tokens, texts_of
from goracs_jax.evaluate.grounding import embed_texts, squared_distances, title_in
from goracs_jax.evaluate.likelihood import answer_likelihoods, pack
from goracs_jax.evaluate.metrics import (
    Bootstrap,
    Estimate,
    auc,
    auc_values,
    check_classes,
    log_likelihoods,
    means,
    ranking_values,
)
from goracs_jax.files import hash_files
from goracs_jax.llm.prompts import Task
from goracs_jax.llm.tokens import Mapper, Tokens
from goracs_jax.models import Decoder
from goracs_jax.runs.opened import Llm, Pool
from goracs_jax.runs.stages import Arrays, Stage, run_stage
from goracs_jax.settings import Evaluate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Examples whose distances to all titles exist at one time.
BLOCK = 256

Judgement = tuple[dict[str, Estimate], Iterable[dict]]


class Plan(NamedTuple):
    """Stages to run, what their arrays come to, and sizes to tell."""

    stages: Sequence[Stage]
    judge: Callable[[Mapping[str, Arrays], Bootstrap], Judgement]
    sizes: Mapping[str, int]
    rows: int  # texts that something is stored of


def plan_ctr(settings: Evaluate, pool: Pool, llm: Llm, work: Path) -> Plan:
    """One forward pass for each prompt; AUC and log likelihood."""
    del settings, work
    positive = read_answers(pool.examples)
    check_classes(positive)

    @cache
    def prepare() -> tuple[Decoder, Questions]:
        decoder, tokenizer = llm.load()
        context = decoder.config.max_positions
        return decoder, ask(pool.examples, tokenizer, context=context)

    def compute(mapper: Mapper) -> Arrays:
        return {"scores": yes_probabilities(*prepare(), mapper=mapper)}

    def judge(arrays: Mapping[str, Arrays], bootstrap: Bootstrap) -> Judgement:
        scores = arrays["answers"]["scores"]
        predictions = (
            {"example": i, "label": "Yes" if label else "No", "score": float(score)}
            for i, (label, score) in enumerate(zip(positive, scores, strict=True))
        )
        likely = {LIKELY: log_likelihoods(positive, scores)}
        area = {"AUC": auc(positive, scores, bootstrap)}
        return area | means(likely, bootstrap), predictions

    stage = Stage("answers", _inputs(pool, llm), compute, prepare)
    sizes = {"Yes": int(positive.sum()), "No": int((~positive).sum())}
    return Plan([stage], judge, sizes, len(positive))


def plan_seqrec(settings: Evaluate, pool: Pool, llm: Llm, work: Path) -> Plan:
    """Generated titles and their distances to real ones; likelihoods; HR and NDCG."""
    path = settings.items or settings.test.with_name("items.jsonl")
    if not path.exists():
        raise InputError(f"{path} does not exist: give the titles with --items.")
    catalogue = read_catalogue(path)
    candidates = read_candidates(pool.examples, catalogue)
    inputs = _inputs(pool, llm) | {"items": hash_files(path)}
    stages = []
    if settings.rank_by != "likelihood":
        written = _generation(settings, pool, llm, candidates, inputs)
        stages += [written, _grounding(llm, catalogue, candidates, written, work)]
    # Of the right title always, of its rivals where they are ranked by it.
    rivals = settings.rank_by != "generation"
    answers = candidates.answers if rivals else [a[:1] for a in candidates.answers]
    stages.append(_likelihood(pool, llm, answers, inputs | {"rivals": rivals}))

    def judge(arrays: Mapping[str, Arrays], bootstrap: Bootstrap) -> Judgement:
        columns = _likelihoods(arrays["likelihood"])
        if "grounding" in arrays:
            columns |= _by_distance(arrays["grounding"], catalogue, candidates)
        if rivals:
            columns |= _by_likelihood(columns, catalogue, candidates)
        predictions = list(_predictions(columns, catalogue, candidates))
        return means(values_of("seqrec", predictions), bootstrap), predictions

    examples, sets = candidates.items.shape
    sizes = {"items": len(catalogue.title_of), "titles": len(catalogue.titles)}
    rows = len(catalogue.titles) + examples
    return Plan(stages, judge, sizes | {"candidates": sets}, rows)


# Of the right answer, the mean over examples; of a title, a token. Minus it is the log
# loss.
LIKELY = "log likelihood"
# Columns of ranks, and what the names of their metrics start with.
RANKS = {
    "rank": "",
    "full_rank": "full ",
    "likelihood_rank": "likelihood ",
    "total_likelihood_rank": "total likelihood ",
}


def values_of(
    task: Task, predictions: Sequence[Mapping[str, Any]]
) -> dict[str, Float[np.ndarray, " examples"]]:
    """What each test example adds to the metrics, which are the means of these.

    Args:
        task: Of the predictions.
        predictions: Records of predictions.jsonl.

    Returns:
        One array for each metric.

    >>> prediction = {"rank": 2, "log_likelihoods": [-6.0], "tokens": [4]}
    >>> values = values_of("seqrec", [prediction])
    >>> values["NDCG@5"], values["log likelihood"]
    (array([0.5]), array([-1.5]))
    """
    column = lambda name: np.array([record[name] for record in predictions])
    if task == "ctr":
        yes, score = column("label") == "Yes", column("score")
        return {"AUC": auc_values(yes, score), LIKELY: log_likelihoods(yes, score)}
    found = {
        prefix + metric: value
        for name, prefix in RANKS.items()
        if name in predictions[0]
        for metric, value in ranking_values(column(name)).items()
    }
    target = lambda name: np.array([record[name][0] for record in predictions])
    return found | {LIKELY: target("log_likelihoods") / target("tokens")}


def _inputs(pool: Pool, llm: Llm) -> dict[str, str]:
    return {"test": pool.sha256, **llm.identity}


def _generation(
    settings: Evaluate,
    pool: Pool,
    llm: Llm,
    candidates: Candidates,
    inputs: Mapping[str, str],
) -> Stage:
    search = {"beams": settings.beams, "new": settings.max_new_tokens}

    @cache
    def prepare() -> tuple[Decoder, "PreTrainedTokenizerFast", Tokens]:
        decoder, tokenizer = llm.load()
        prompts = prompt_tokens(
            [text.prompt for text in pool.prompts],
            tokenizer,
            context=decoder.config.max_positions,
            new=settings.max_new_tokens,
            places=pool.places,
        )
        return decoder, tokenizer, prompts

    def compute(mapper: Mapper) -> Arrays:
        decoder, tokenizer, prompts = prepare()
        ends = ending(tokenizer, decoder.config.vocab_size, candidates.quotes)
        return {"ids": generate(decoder, prompts, ends, mapper=mapper, **search)}

    return Stage("generation", {**inputs, **search}, compute, prepare)


def _grounding(
    llm: Llm, catalogue: Catalogue, candidates: Candidates, written: Stage, work: Path
) -> Stage:
    """Embeddings of all titles and, behind them, of what was generated.

    Together: what is a title to the letter gets the title's vector.
    """

    def compute(mapper: Mapper) -> Arrays:
        decoder, tokenizer = llm.load()
        ids = run_stage(work, written).arrays["ids"]
        texts = [title_in(t, candidates.quotes) for t in texts_of(ids, tokenizer)]
        both = catalogue.titles + texts
        x = embed_texts(decoder, tokenizer, both, mapper=mapper)
        return {"embeddings": x, "generated": np.array(texts)}

    return Stage("grounding", written.inputs, compute, llm.load)


def _likelihood(
    pool: Pool,
    llm: Llm,
    answers: Sequence[Sequence[str]],
    inputs: Mapping[str, str | bool],
) -> Stage:
    @cache
    def prepare() -> tuple[Decoder, Tokens]:
        decoder, tokenizer = llm.load()
        packed = pack(
            [text.prompt for text in pool.prompts],
            answers,
            tokenizer,
            context=decoder.config.max_positions,
            places=pool.places,
        )
        return decoder, packed

    def compute(mapper: Mapper) -> Arrays:
        return {"log_p": answer_likelihoods(*prepare(), mapper=mapper)}

    return Stage("likelihood", inputs, compute, prepare)


def _by_distance(
    arrays: Arrays, catalogue: Catalogue, candidates: Candidates
) -> dict[str, np.ndarray]:
    titles, texts = np.split(arrays["embeddings"], [len(catalogue.titles)])
    own = catalogue.title_of[candidates.items]
    parts = []
    for first in range(0, len(texts), BLOCK):
        block = slice(first, first + BLOCK)
        distances = np.sqrt(squared_distances(texts[block], titles))
        items = candidates.items[block]
        near = np.take_along_axis(distances, own[block], axis=1)
        parts.append(
            {
                "nearest": np.array(catalogue.titles)[distances.argmin(axis=1)],
                "rank": sampled_ranks(near, items, catalogue),
                "full_rank": full_ranks(distances, items, catalogue),
                "distances": near,
            }
        )
    joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    return {"generated": arrays["generated"]} | joined


def _likelihoods(arrays: Arrays) -> dict[str, np.ndarray]:
    total, tokens = np.moveaxis(arrays["log_p"].astype(np.float64), 2, 0)
    return {"log_likelihoods": total, "tokens": tokens.astype(int)}


def _by_likelihood(
    columns: Mapping[str, np.ndarray], catalogue: Catalogue, candidates: Candidates
) -> dict[str, np.ndarray]:
    total, tokens = columns["log_likelihoods"], columns["tokens"]
    rank = lambda score: sampled_ranks(-score, candidates.items, catalogue)
    return {
        "likelihood_rank": rank(total / np.maximum(tokens, 1)),
        "total_likelihood_rank": rank(total),
    }


def _predictions(
    columns: Mapping[str, np.ndarray], catalogue: Catalogue, candidates: Candidates
) -> Iterable[dict]:
    """One record per example; lists are in the order of `candidates`, target first."""
    ids = list(catalogue.row_of)
    for i, row in enumerate(candidates.items):
        items = row[row != NONE].tolist()
        values = {name: column[i].tolist() for name, column in columns.items()}
        yield {
            "example": i,
            "title": catalogue.titles[catalogue.title_of[items[0]]],
            **{
                name: value[: len(items)] if isinstance(value, list) else value
                for name, value in values.items()
            },
            "candidates": [ids[item] for item in items],
        }
