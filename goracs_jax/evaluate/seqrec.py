"""The plan of next-item ranking: stages, and how their arrays are judged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from goracs_jax.data.examples import written
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
from goracs_jax.evaluate.exposure import (
    Top,
    coverage,
    first_items,
    long_tail,
    share_of,
)
from goracs_jax.evaluate.generation import (
    closing,
    ending,
    generate,
    prompt_tokens,
    texts_of,
)
from goracs_jax.evaluate.grounding import embed_texts, squared_distances, title_in
from goracs_jax.evaluate.likelihood import answer_likelihoods, pack
from goracs_jax.evaluate.metrics import Bootstrap, means
from goracs_jax.evaluate.outcomes import values_of
from goracs_jax.evaluate.plan import Judgement, Plan
from goracs_jax.files import hash_files
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.tokens import Tokens
from goracs_jax.models import Decoder
from goracs_jax.runs.opened import Llm, Pool
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.stages import Arrays, Stage, run_stage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Examples whose distances to all titles exist at one time.
BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """How the titles of next items are ranked."""

    rank_by: Literal["both", "generation", "likelihood"] = "both"
    beams: int = 2
    max_new_tokens: int = 128


def plan_seqrec(
    pool: Pool, llm: Llm, items: Path, config: RankingConfig, work: Path
) -> Plan:
    """Plan next-item ranking: the log likelihood of the right title, HR and NDCG.

    Titles are ranked by their distance to a generated one, by their likelihood, or by
    both. Coverage and the share of the long tail are those of the ten candidates of
    largest total likelihood; where nothing is ranked by likelihood, those of the ten
    items of the catalogue that are nearest to the generated title.

    Args:
        pool: The test examples.
        llm: The model.
        items: The file of all titles.
        config: How titles are ranked.
        work: Where stages are kept.

    Raises:
        InputError: There are no titles, or an example does not fit them.
    """
    if not items.exists():
        raise InputError(f"{items} does not exist: give the titles with --items.")
    catalogue = read_catalogue(items)
    candidates = read_candidates(pool.examples, catalogue)
    inputs = {"test": pool.sha256, **llm.identity, "items": hash_files(items)}
    stages = []
    if config.rank_by != "likelihood":
        written = _generation(config, pool, llm, candidates, inputs)
        stages += [written, _grounding(llm, catalogue, candidates, written, work)]
    # A ranking by likelihood needs that of all candidates; the log likelihood that is
    # always reported needs that of the right title alone.
    rivals = config.rank_by != "generation"
    answers = candidates.answers if rivals else [a[:1] for a in candidates.answers]
    stages.append(_likelihood(pool, llm, answers, inputs | {"rivals": rivals}))

    def judge(arrays: Mapping[str, Arrays], bootstrap: Bootstrap) -> Judgement:
        columns = _likelihoods(arrays["likelihood"])
        if "grounding" in arrays:
            columns |= _by_distance(arrays["grounding"], catalogue, candidates)
        if rivals:
            columns |= _by_likelihood(columns, catalogue, candidates)
        top = columns.pop("top")
        exposed: dict[str, Any] = {"coverage@10": coverage(top, len(catalogue.row_of))}
        if catalogue.interactions is not None:
            tail = long_tail(catalogue.interactions)
            columns["long_tail"] = share_of(tail, top)
            exposed["long_tail_items"] = int(tail.sum())
        predictions = list(_predictions(columns, top, catalogue, candidates))
        found = means(values_of("seqrec", predictions), bootstrap)
        return Judgement(found, predictions, {"exposure": exposed})

    examples, width = candidates.items.shape
    sizes = {"items": len(catalogue.title_of), "titles": len(catalogue.titles)}
    rows = len(catalogue.titles) + examples
    return Plan(stages, judge, sizes | {"candidates": width}, rows)


def _generation(
    config: RankingConfig,
    pool: Pool,
    llm: Llm,
    candidates: Candidates,
    inputs: Mapping[str, str],
) -> Stage:
    """Make the stage of the titles that beam search writes."""
    search = {"beams": config.beams, "new": config.max_new_tokens}

    @cache
    def prepare() -> tuple[Decoder, "PreTrainedTokenizerFast", Tokens]:
        prompts = prompt_tokens(
            written(pool.examples, llm.template(pool.form).prompt),
            llm.tokenizer(),
            context=llm.config().max_positions,
            new=config.max_new_tokens,
            places=pool.places,
        )
        return *llm.load(), prompts

    def compute(mapper: Mapper) -> Arrays:
        decoder, tokenizer, prompts = prepare()
        said = pool.examples[0].conversation
        closed = llm.template(pool.form).answered(said, said.answer)
        stop = closing(closed.text, said.answer, tokenizer)
        ends = ending(tokenizer, decoder.config.vocab_size, candidates.quotes, stop)
        return {"ids": generate(decoder, prompts, ends, mapper=mapper, **search)}

    revision = revision_of("generation")
    return Stage("generation", {**inputs, **search}, compute, prepare, revision)


def _grounding(
    llm: Llm, catalogue: Catalogue, candidates: Candidates, written: Stage, work: Path
) -> Stage:
    """Make the stage of the embeddings of all titles and, after them, generated texts.

    They are embedded together, so that a text that is a title to the letter gets the
    title's vector.
    """

    def compute(mapper: Mapper) -> Arrays:
        decoder, tokenizer = llm.load()
        ids = run_stage(work, written).arrays["ids"]
        titles = frozenset(catalogue.titles)
        texts = [
            title_in(text, around, titles)
            for text, around in zip(
                texts_of(ids, tokenizer), candidates.around, strict=True
            )
        ]
        both = catalogue.titles + texts
        x = embed_texts(decoder, tokenizer, both, mapper=mapper)
        return {"embeddings": x, "generated": np.array(texts)}

    revision = revision_of("grounding")
    return Stage("grounding", written.basis, compute, llm.load, revision)


def _likelihood(
    pool: Pool,
    llm: Llm,
    answers: Sequence[Sequence[str]],
    inputs: Mapping[str, str | bool],
) -> Stage:
    """Make the stage of the log likelihoods of candidate answers."""

    @cache
    def prepare() -> tuple[Decoder, Tokens]:
        template = llm.template(pool.form)
        rows = iter(answers)
        write = lambda said: [template.answered(said, each) for each in next(rows)]
        texts = written(pool.examples, write)
        context = llm.config().max_positions
        packed = pack(texts, llm.tokenizer(), context=context, places=pool.places)
        return llm.decoder(), packed

    def compute(mapper: Mapper) -> Arrays:
        return {"log_p": answer_likelihoods(*prepare(), mapper=mapper)}

    revision = revision_of("likelihood")
    return Stage("likelihood", inputs, compute, prepare, revision)


def _by_distance(
    arrays: Arrays, catalogue: Catalogue, candidates: Candidates
) -> dict[str, np.ndarray]:
    """Rank titles by their distance to the generated ones, block by block."""
    titles, texts = np.split(arrays["embeddings"], [len(catalogue.titles)])
    own = catalogue.title_of[candidates.items]
    everything = np.arange(len(catalogue.title_of))[None]
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
                "top": first_items(distances[:, catalogue.title_of], everything),
                "distances": near,
            }
        )
    joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    return {"generated": arrays["generated"]} | joined


def _likelihoods(arrays: Arrays) -> dict[str, np.ndarray]:
    """Return the log likelihood of each candidate's title, and its number of tokens."""
    total, tokens = np.moveaxis(arrays["log_p"].astype(np.float64), 2, 0)
    return {"log_likelihoods": total, "tokens": tokens.astype(int)}


def _by_likelihood(
    columns: Mapping[str, np.ndarray], catalogue: Catalogue, candidates: Candidates
) -> dict[str, np.ndarray]:
    """Rank titles by likelihood, per token and in total; the latter come first."""
    total, tokens = columns["log_likelihoods"], columns["tokens"]
    rank = lambda score: sampled_ranks(-score, candidates.items, catalogue)
    return {
        "likelihood_rank": rank(total / np.maximum(tokens, 1)),
        "total_likelihood_rank": rank(total),
        "top": first_items(-total, candidates.items),
    }


def _predictions(
    columns: Mapping[str, np.ndarray],
    top: Top,
    catalogue: Catalogue,
    candidates: Candidates,
) -> Iterable[dict]:
    """Make one record per example; its lists but `top` have the candidates' order."""
    ids = list(catalogue.row_of)
    for i, (row, first) in enumerate(zip(candidates.items, top, strict=True)):
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
            "top": [ids[item] for item in first[first != NONE].tolist()],
        }
