"""Train and judge the cells of a testbed in one process; lower layers run but once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32
from testbeds_pools import BUDGET, Drawn, Universe
from testbeds_questions import movielens

from goracs_jax.data.demo import fetch
from goracs_jax.data.examples import Example
from goracs_jax.errors import InputError
from goracs_jax.evaluate.ctr import Questions, ask, yes_margins
from goracs_jax.evaluate.likelihood import answer_likelihoods, pack
from goracs_jax.evaluate.metrics import ranks
from goracs_jax.llm.embeddings import embed_with_decoder
from goracs_jax.llm.losses import example_losses, loss_drop
from goracs_jax.llm.lower import LowerTable
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.tokenization import tokenize
from goracs_jax.llm.tokens import Tokens, take
from goracs_jax.models import LoraConfig
from goracs_jax.models.targets import LINEAR_NAMES, Rules
from goracs_jax.runs.lower import keep_states
from goracs_jax.runs.opened import Llm, open_llm
from goracs_jax.training import FinetuneConfig, finetune

# All linear layers of the last two of SmolLM2-135M's thirty. Without dropout, whose
# random numbers cost time.
LORA = LoraConfig(rules=Rules(targets=LINEAR_NAMES, layers=(28, 29)), dropout=0.0)
#: Rows of the judge whose titles are ranked, which runs all layers for every title.
RANKED = 50


class Trainer(NamedTuple):
    """What all cells of a testbed share."""

    config: FinetuneConfig
    pool: Tokens
    held: Tokens
    yes: Bool[np.ndarray, " held"]
    questions: Questions | None  # held without their answers, unless titles are ranked
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
        pool, held = (tokens_of(r, model) for r in (universe.pool, universe.held))
        questions = candidates = None
        texts = [pool, held]
        if "negatives" in universe.held[0]:
            candidates = _candidates(universe.held, model)
        else:
            examples = [Example(dict(record), "held") for record in universe.held]
            questions = ask(examples, model.tokenizer(), context=_context(model))
            texts.append(questions.tokens)
        reads = 100 * sum(each.num_examples for each in texts)
        lower = keep_states(folder, model, texts, reads)
        if lower is None:
            raise InputError(f"{folder} has no room for the states of all rows.")
        yes = np.array([record["output"] == "Yes" for record in universe.held])
        return cls(config, pool, held, yes, questions, candidates, lower)

    def prompts(self) -> dict[str, Float32[np.ndarray, "rows dim"]]:
        """Return the mean hidden states of the prompts of all rows, by side."""
        model, given = llm(0).decoder(), {"pooling": "prompt", "lower": self.lower}
        sides = {"train": self.pool, "valid": self.held}
        return {k: embed_with_decoder(model, t, **given) for k, t in sides.items()}

    def drops(self, drawn: Drawn, seed: int) -> Float32[np.ndarray, " drawn"]:
        """Train on the target itself; return the loss drop of each row of the pool."""
        start, target = llm(seed).decoder(), take(self.held, drawn.target)
        keywords = {"seed": seed, "lower": self.lower}
        end = finetune(start, target, target, self.config, **keywords).model
        pool = take(self.pool, drawn.pool)
        return loss_drop(example_losses([start, end], pool, lower=self.lower))

    def cell(self, rows: np.ndarray, drawn: Drawn, seed: int) -> dict[str, Any]:
        """Train on some rows of the pool, and judge; return what a cell keeps.

        The seed also draws the fresh adapter. Several times the rows of a budget take
        as many times the steps, so that each row is seen as often.
        """
        assert self.config.steps is not None
        steps = self.config.steps * max(1, len(rows) // BUDGET)
        config = replace(self.config, steps=steps)
        train, judge = take(self.pool, rows), take(self.held, drawn.judge)
        model, keywords = llm(seed).decoder(), {"seed": seed, "lower": self.lower}
        done = finetune(model, train, judge, config, **keywords)
        # The loss is a mean over tokens; of an answer, all tokens count together.
        total = done.best_loss * float(judge.scored.sum())
        found: dict[str, Any] = {"judge_likelihood": -total / len(drawn.judge)}
        if self.candidates is not None:
            packed = take(self.candidates, drawn.judge[:RANKED])
            likely = answer_likelihoods(done.model, packed)[..., 0]
            right = np.arange(likely.shape[1])[None] == np.zeros((len(likely), 1))
            return found | {"judge_ranks": ranks(-likely, right).tolist()}
        assert self.questions is not None
        margins = yes_margins(done.model, self.questions, lower=self.lower)
        for part in ("target", "judge"):
            held = getattr(drawn, part)
            found[f"{part}_margins"] = margins[held].tolist()
            found[f"{part}_yes"] = self.yes[held].tolist()
        return found


def llm(seed: int) -> Llm:
    """Open SmolLM2-135M with a fresh adapter."""
    return open_llm(fetch().model, None, seed, lora=LORA)


def tokens_of(records: Sequence[Mapping[str, str]], model: Llm) -> Tokens:
    """Tokenize records, of which the answer is scored."""
    prompts = [format_prompt(record) for record in records]
    places = [f"row {number}" for number in range(len(records))]
    rest = {"context": _context(model), "places": places}
    return tokenize(prompts, model.tokenizer(), labels="answer", **rest)


def _candidates(records: Sequence[Mapping[str, Any]], model: Llm) -> Tokens:
    """Pack each prompt with the right title and with those it is ranked among."""
    ml = movielens()
    row_of = {item: row for row, item in enumerate(ml.log.item_ids)}
    title = lambda item: f'"{ml.described(row_of[item])}"'
    answers = [
        [record["output"], *map(title, record["negatives"])] for record in records
    ]
    prompts = (format_prompt(record).prompt for record in records)
    texts = [
        [(prompt, answer) for answer in each]
        for prompt, each in zip(prompts, answers, strict=True)
    ]
    rest = {"context": _context(model), "places": ["held"] * len(records)}
    return pack(texts, model.tokenizer(), **rest)


def _context(model: Llm) -> int:
    return model.decoder().config.max_positions
