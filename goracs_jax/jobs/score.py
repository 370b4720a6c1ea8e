"""Scores of examples, one row each: embeddings, gradient norms, losses and errors."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from goracs_jax.files import atomic, hash_files, prepare_folder
from goracs_jax.gradients.adam import Moments
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.embeddings import embed_with_decoder, embed_with_encoder
from goracs_jax.llm.gradients import ExampleScores, Which, example_scores
from goracs_jax.llm.projections import projected_gradients
from goracs_jax.llm.template_choice import encoder_template
from goracs_jax.llm.tokenization import Scored
from goracs_jax.llm.tokens import Tokens
from goracs_jax.mesh import leads
from goracs_jax.models import Decoder
from goracs_jax.runs.identity import Identity, digests_of
from goracs_jax.runs.opened import Llm, Pool, SentenceEncoder
from goracs_jax.runs.outputs import working_in
from goracs_jax.runs.reading import embedded_texts, tokenize_texts, tokens_of
from goracs_jax.runs.records import UNREADABLE, read_record
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import Arrays, Stage, run_stage


class Projection(NamedTuple):
    """How gradients are projected at random."""

    dim: int
    dtype: Literal["float32", "float16"]
    seed: int

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `goracs_jax.llm.projections.projected_gradients`."""
        # The adapter is drawn from the seed itself: signs need another key.
        key = jax.random.fold_in(jax.random.key(self.seed), 1)
        return {"dim": self.dim, "dtype": self.dtype, "key": key}


class Scores(NamedTuple):
    """Arrays with one row per example, by name, and the seconds that they took."""

    arrays: Arrays
    seconds: float
    identity: Identity

    def save(self, outputs: Mapping[str, Path], pool: Pool) -> None:
        """Write the arrays that are wanted, and beside each a record of its origin.

        Records that were left out have rows of NaN.

        Args:
            outputs: The .npy file of each array that is wanted, by name.
            pool: The examples.
        """
        left_out = dict(pool.skipped.kinds) if pool.skipped else {}
        for name, out in outputs.items():
            rows = pool.of_file.spread(self.arrays[name])
            with atomic(out) as file:
                np.save(file, rows)
            origin, _ = digests_of(self.identity)
            record: dict[str, Any] = {"inputs": origin, "sha256": hash_files(out)}
            if left_out:
                record["left_out"] = left_out
            with atomic(_record_of(out)) as file:
                timed = record | {"seconds": self.seconds}
                file.write(json.dumps(timed, indent=1).encode())
            say(f"{out}: {rows.dtype} {list(rows.shape)}, {self.seconds:.1f} s")

    @classmethod
    def load(cls, outputs: Mapping[str, Path], stage: Stage) -> "Scores | None":
        """Map the files into memory; None if one is lost, changed or of another stage.

        Args:
            outputs: The .npy file of each array, by name.
            stage: What should have computed them.
        """
        arrays, seconds = {}, 0.0
        for name, out in outputs.items():
            record = read_record(_record_of(out)) or {}
            try:
                if record.get("inputs") not in digests_of(stage.identity):
                    return None
                if record["sha256"] != hash_files(out):
                    return None
                arrays[name] = np.lib.format.open_memmap(out, mode="r")
                seconds = record["seconds"]
            except UNREADABLE:
                return None
        return cls(arrays, seconds, stage.identity)


def run(
    stage: Stage,
    outputs: Mapping[str, Path],
    work: Path,
    needed_bytes: int,
    pool: Pool,
) -> Scores:
    """Compute scores and save them, or load what the same stage has saved before.

    Args:
        stage: One of `embed_stage` or `norms_stage`.
        outputs: The .npy file of each array that is wanted, by name.
        work: The folder of the stage while it runs; it is removed afterwards.
        needed_bytes: What the disk must have room for.
        pool: The examples that the stage scores.
    """
    if found := Scores.load(outputs, stage):
        say(f"{listed(outputs)} already done.")
        return found
    if leads():
        for out in outputs.values():
            prepare_folder(out.parent, 0)
    with working_in(work, needed_bytes) as writes:
        stage.prepare()
        result = run_stage(work, stage)
        scores = Scores(result.arrays, result.seconds, stage.identity)
        if writes:
            scores.save(outputs, pool)
            shutil.rmtree(work)
    return scores


def listed(outputs: Mapping[str, Path]) -> str:
    """Return the names of the output files, for messages."""
    return ", ".join(map(str, outputs.values()))


def embed_stage(
    name: str, pool: Pool, source: Llm | SentenceEncoder, embedded: Scored
) -> Stage:
    """Make the stage of a pool's `embeddings`, one row per example.

    Args:
        name: The name of the stage.
        pool: The examples.
        source: What embeds them.
        embedded: "all" embeds prompt and answer, "answer" the prompt alone.
    """
    revision = revision_of("embeddings")
    inputs = {"data": pool.sha256, "labels": embedded, **source.identity}
    if isinstance(source, SentenceEncoder):

        def encode(mapper: Mapper) -> Arrays:
            encoder, tokenizer = source.load()
            texts = embedded_texts(pool, encoder_template(pool.form), embedded)
            plain = (text.text for text in texts)
            x = embed_with_encoder(encoder, tokenizer, plain, mapper=mapper)
            return {"embeddings": x}

        return Stage(name, inputs, encode, source.load, revision)

    @cache
    def prepare() -> tuple[Decoder, Tokens]:
        texts = embedded_texts(pool, source.template(pool.form), embedded)
        tokens = tokenize_texts(texts, pool, source)
        return source.decoder(), tokens

    def decode(mapper: Mapper) -> Arrays:
        return {"embeddings": embed_with_decoder(*prepare(), mapper=mapper)}

    return Stage(name, inputs, decode, prepare, revision)


def norms_stage(
    pool: Pool,
    llm: Llm,
    which: Which,
    scored: Scored,
    projection: Projection | None = None,
    moments: Callable[[], Moments] | None = None,
) -> Stage:
    """Make the stage of a pool's `norms`, `losses`, `errors` and `projections`.

    One pass computes them all; `projections` only if they are asked for.

    Args:
        pool: The examples.
        llm: The model.
        which: The parameters whose gradient is taken.
        scored: Which tokens are in the loss.
        projection: How gradients are projected.
        moments: Adam's, of the training that made the model's adapter: the direction of
            Adam's next step is projected in place of the gradient.
    """
    load = tokens_of(pool, llm, scored)

    def compute(mapper: Mapper) -> Arrays:
        given = {"which": which, "mapper": mapper}
        if projection is None:
            return _named(example_scores(*load(), **given))
        given["moments"] = moments and moments()
        found = projected_gradients(*load(), **projection.settings(), **given)
        return _named(found.scores) | {"projections": found.gradients}

    inputs = norms_inputs(pool, llm, which, scored, projection)
    if moments:
        inputs["step"] = "adam"
    revision = revision_of("gradient-norms")
    return Stage("gradient-norms", inputs, compute, load, revision)


def norms_inputs(
    pool: Pool,
    llm: Llm,
    which: Which,
    scored: Scored,
    projection: Projection | None = None,
) -> dict[str, Any]:
    """Return what the gradients of a pool depend on; see `norms_stage`."""
    inputs = {
        "data": pool.sha256,
        "which": which,
        "labels": scored,
        "seed": llm.seed,
        **llm.identity,
    }
    return inputs | ({"projection": projection._asdict()} if projection else {})


def _named(scores: ExampleScores) -> Arrays:
    return {
        "norms": scores.norm,
        "losses": scores.loss,
        "errors": scores.prediction_error,
    }


def _record_of(out: Path) -> Path:
    return out.with_name(out.name + ".json")
