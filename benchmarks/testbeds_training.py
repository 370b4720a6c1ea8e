"""Train and judge the cells of a testbed in one process; lower layers run but once."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float
from testbeds_pools import Drawn, Universe
from testbeds_questions import movielens

from goracs_jax.data.demo import fetch
from goracs_jax.errors import InputError
from goracs_jax.evaluate.likelihood import answer_likelihoods, pack
from goracs_jax.evaluate.metrics import ranks
from goracs_jax.llm.batches import make_batches
from goracs_jax.llm.embeddings import last_places
from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.passes import map_batches
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.tokens import Tokens, take
from goracs_jax.models import Decoder, LoraConfig
from goracs_jax.models.lower import LowerStates
from goracs_jax.models.targets import Rules
from goracs_jax.runs.lower import keep_states
from goracs_jax.runs.opened import Llm, open_llm, tokenize_pool
from goracs_jax.training import FinetuneConfig, finetune

TARGETS = ("q_proj", "v_proj")
LAYERS = tuple(range(24, 30))  # of SmolLM2-135M's thirty


class Trainer(NamedTuple):
    """What all cells of a testbed share."""

    config: FinetuneConfig
    pool: Tokens
    held: Tokens
    yes: Bool[np.ndarray, " held"]
    candidates: Tokens | None  # held with every title that is ranked, if they are
    lower: LowerTable

    @classmethod
    def of(cls, universe: Universe, config: FinetuneConfig, folder: Path) -> "Trainer":
        """Tokenize all rows, and run the lower layers over them.

        Args:
            universe: The rows.
            config: The training of a cell.
            folder: Where the states of the lower layers are kept.
        """
        model = llm(0)
        pool, held = (_tokens(r, model) for r in (universe.pool, universe.held))
        ranked = "negatives" in universe.held[0]
        candidates = _candidates(universe.held, model) if ranked else None
        reads = 100 * (pool.num_examples + held.num_examples)
        lower = keep_states(folder, model, [pool, held], reads)
        if lower is None:
            raise InputError(f"{folder} has no room for the states of all rows.")
        yes = np.array([record["output"] == "Yes" for record in universe.held])
        return cls(config, pool, held, yes, candidates, lower)

    def cell(self, rows: np.ndarray, drawn: Drawn, seed: int) -> dict[str, Any]:
        """Train on some rows of the pool, and judge; return what a cell keeps.

        The seed also draws the fresh adapter.
        """
        train, judge = take(self.pool, rows), take(self.held, drawn.judge)
        model, keywords = llm(seed).decoder(), {"seed": seed, "lower": self.lower}
        done = finetune(model, train, judge, self.config, **keywords)
        # The loss is a mean over tokens; of an answer, all tokens count together.
        total = done.best_loss * float(judge.scored.sum())
        found: dict[str, Any] = {"judge_likelihood": -total / len(drawn.judge)}
        if self.candidates is not None:
            packed = take(self.candidates, drawn.judge)
            likely = answer_likelihoods(done.model, packed)[..., 0]
            right = np.arange(likely.shape[1])[None] == np.zeros((len(likely), 1))
            return found | {"judge_ranks": ranks(-likely, right).tolist()}
        margins = self._margins(done.model)
        for part in ("target", "judge"):
            held = getattr(drawn, part)
            found[f"{part}_margins"] = margins[held].tolist()
            found[f"{part}_yes"] = self.yes[held].tolist()
        return found

    def _margins(self, model: Decoder) -> Float[np.ndarray, " held"]:
        """Return z_yes - z_no of every held row."""
        # The last token of a prompt stands before the answer and the end of the text,
        # which it does not see.
        ends = self.held.offsets[1:]
        first = lambda rows: self.held.ids[ends[rows] - 2][0]
        answers = np.array([first(self.yes), first(~self.yes)])
        score = partial(_margins, *nnx.split(model), answers)
        batches = make_batches(self.held)
        return map_batches(lambda ids, _: score(ids, self.lower.states(ids)), batches)


def llm(seed: int) -> Llm:
    """Open SmolLM2-135M with a fresh adapter in its last six layers."""
    lora = LoraConfig(rules=Rules(targets=TARGETS, layers=LAYERS))
    return open_llm(fetch().model, None, seed, lora=lora)


@jax.jit
def _margins(graph, state, answers, ids, lower: LowerStates):
    model = nnx.merge(graph, state)
    last = model.hidden_at(lower, last_places(ids)[:, None] - 2)[:, 0]
    yes, no = model.logits(last, answers).T
    return yes - no


def _tokens(records: Sequence[Mapping[str, str]], model: Llm) -> Tokens:
    prompts = [format_prompt(record) for record in records]
    places = [f"row {number}" for number in range(len(records))]
    return tokenize_pool(prompts, places, model, "answer")


def _candidates(records: Sequence[Mapping[str, Any]], model: Llm) -> Tokens:
    """Pack each prompt with the right title and with those it is ranked among."""
    log = movielens().log
    titles = dict(zip(log.item_ids, log.titles, strict=True))
    answers = [
        [record["output"], *(f'"{titles[item]}"' for item in record["negatives"])]
        for record in records
    ]
    prompts = [format_prompt(record).prompt for record in records]
    rest = {"context": _context(model), "places": ["held"] * len(records)}
    return pack(prompts, answers, model.tokenizer(), **rest)


def _context(model: Llm) -> int:
    return model.decoder().config.max_positions
