"""Stages of the rows and rewards that a selection can use beside texts and norms."""

from pathlib import Path
from typing import Any

from goracs_jax.jobs.score import Projection, norms_inputs
from goracs_jax.jobs.warm_up import Warmed
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.embeddings import Pooling, embed_with_decoder
from goracs_jax.llm.losses import example_losses, loss_drop
from goracs_jax.llm.projections import projected_gradients
from goracs_jax.llm.tokenization import Scored
from goracs_jax.llm.tokens import Tokens
from goracs_jax.models import Decoder
from goracs_jax.runs.opened import Llm, Pool
from goracs_jax.runs.reading import tokens_of
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.stages import Arrays, Stage, run_stage
from goracs_jax.spaces import coordinates, leading_directions


def states_stage(name: str, pool: Pool, llm: Llm, pooling: Pooling) -> Stage:
    """Make the stage of means of hidden states, as `embeddings`.

    Args:
        name: The name of the stage.
        pool: The examples.
        llm: The model.
        pooling: "weighted" as RDS+ has it, of prompt and answer, whatever the loss
            scores; or "prompt", without the answer.
    """
    load = tokens_of(pool, llm, "answer" if pooling == "prompt" else "all")

    def compute(mapper: Mapper) -> Arrays:
        x = embed_with_decoder(*load(), pooling=pooling, mapper=mapper)
        return {"embeddings": x}

    inputs = {"data": pool.sha256, "pooling": pooling, **llm.identity}
    return Stage(name, inputs, compute, load, revision_of("embeddings"))


def subspace_stages(
    train: Pool,
    valid: Pool,
    llm: Llm,
    scored: Scored,
    projection: Projection,
    k: int | None,
    folder: Path,
) -> tuple[Stage, Stage]:
    """Make the stages of both sets' gradients in the subspace of the validation set.

    Both give `projections`, with k numbers for each example. Those of the training
    examples never exist in full width: each is brought into the subspace inside the
    pass.

    Args:
        train: The training examples.
        valid: The validation examples.
        llm: The model, as a rule with an adapter that was trained a little.
        scored: Which tokens are in the loss.
        projection: How gradients are projected at first; GIST's subspace is found among
            many numbers, such as 8,192.
        k: Directions of the subspace; None takes them from the spectrum, see
            `goracs_jax.spaces.leading_directions`.
        folder: The folder of the run, in which both stages are kept.

    Returns:
        The stages of the training and of the validation examples. The first reads the
        result of the second, and runs it where this has not happened.
    """
    which = "all_lora"

    load_train, load_valid = (tokens_of(pool, llm, scored) for pool in (train, valid))
    depends_on = lambda pool: norms_inputs(pool, llm, which, scored, projection)

    def project(loaded: tuple[Decoder, Tokens], mapper: Mapper, **more: Any) -> Any:
        given = {"which": which, "mapper": mapper, **projection.settings(), **more}
        return projected_gradients(*loaded, **given).gradients

    def find(mapper: Mapper) -> Arrays:
        wide = project(load_valid(), mapper)
        directions = leading_directions(wide, k)
        along = coordinates(wide, directions)
        return {"projections": along, "directions": directions}

    def bring(mapper: Mapper) -> Arrays:
        directions = run_stage(folder, of_valid).arrays["directions"]
        return {"projections": project(load_train(), mapper, directions=directions)}

    revision = revision_of("gradient-norms")
    inputs = {**depends_on(valid), "k": k}
    of_valid = Stage("validation subspace", inputs, find, load_valid, revision)
    inputs = {**depends_on(train), "subspace": of_valid.basis}
    of_train = Stage("training subspace", inputs, bring, load_train, revision)
    return of_train, of_valid


def loss_drop_stage(pool: Pool, llm: Llm, path: Warmed, scored: Scored) -> Stage:
    """Make the stage of the `rewards` by the loss drop along a path to the target.

    Args:
        pool: The training examples.
        llm: The model at the start of the path.
        path: The model at its end, from `goracs_jax.jobs.warm_up.target_path`.
        scored: Which tokens are in the loss.
    """
    load = tokens_of(pool, llm, scored)

    def compute(mapper: Mapper) -> Arrays:
        start, tokens = load()
        end = path.llm.decoder()
        losses = example_losses([start, end], tokens, mapper=mapper)
        return {"rewards": loss_drop(losses), "losses": losses}

    inputs = {
        "data": pool.sha256,
        "labels": scored,
        "seed": llm.seed,
        "path": path.stage.basis,
        **llm.identity,
    }
    return Stage("loss drop", inputs, compute, load, revision_of("finetune"))
