"""The programs of a language model, traced for shapes alone."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Traced
from jaxtyping import PyTree

from goracs_jax.evaluate.beam import Ending, generation_pass
from goracs_jax.evaluate.ctr import yes_pass
from goracs_jax.evaluate.likelihood import likelihood_pass
from goracs_jax.llm.activations import BEAMS, NEW, Rows
from goracs_jax.llm.batches import Batch
from goracs_jax.llm.embeddings import embedding_pass
from goracs_jax.llm.gradients import score_pass
from goracs_jax.llm.passes import Pass
from goracs_jax.llm.projections import projection_pass
from goracs_jax.mesh import DATA
from goracs_jax.models.decoder import Decoder
from goracs_jax.training import FinetuneConfig, step

#: Numbers that are kept of a projected gradient, the default of `goracs grads`.
PROJECTED = 1024
#: Candidates of an example whose likelihoods are computed together.
ANSWERS = 100


def llm_programs(model: Decoder, rows: Rows) -> Mapping[str, Callable[[], Traced]]:
    """List the programs that score, train and judge with a language model.

    Args:
        model: Made by `goracs_jax.models.sharding.abstract_decoder`.
        rows: The shape of a batch, over all devices.

    Returns:
        Functions that trace a program, by its name: a pass of `goracs_jax.llm.memory`,
        one that also projects gradients, or the update at the end of a training step.

    >>> from goracs_jax.mesh import model_mesh
    >>> from goracs_jax.models import DecoderConfig
    >>> from goracs_jax.models.sharding import abstract_decoder
    >>> model = abstract_decoder(DecoderConfig.tiny(), model_mesh(jax.devices()[:1]))
    >>> llm_programs(model, Rows(2, 16, 16))["embedding"]().out_info.shape
    (2, 32)
    """
    mesh = model.execution.grid
    assert mesh is not None, "an abstract model is spread over a grid"
    table = _shaped(mesh, (rows.examples, rows.length), np.int32, DATA)
    key = jax.random.key(0)

    def traced(run: Pass) -> Traced:
        return run.fn.trace(*run.given, table, table)

    def projected(which: Any) -> Traced:
        most = rows.scored
        return traced(projection_pass(model, which, most=most, dim=PROJECTED, key=key))

    def generation() -> Traced:
        weights = np.zeros(model.config.vocab_size, np.int32)
        ending = Ending(weights, np.array(1, np.int32))
        return traced(generation_pass(model, ending, beams=BEAMS, new=NEW))

    norms = lambda which: traced(score_pass(model, which, most=rows.scored))
    return {
        "embedding": lambda: traced(embedding_pass(model)),
        "last_v_lora_b": lambda: norms("last_v_lora_b"),
        "last_v_lora_b projected": lambda: projected("last_v_lora_b"),
        "all_lora": lambda: norms("all_lora"),
        "all_lora projected": lambda: projected("all_lora"),
        **_training(model, mesh, rows),
        "answers": lambda: traced(yes_pass(model, 0, 1)),
        "likelihood": lambda: traced(likelihood_pass(model, answers=ANSWERS)),
        "generation": generation,
    }


def _training(
    model: Decoder, mesh: Mesh, rows: Rows
) -> Mapping[str, Callable[[], Traced]]:
    parts = step.split(model)
    everywhere = lambda x: _shaped(mesh, x.shape, x.dtype)
    shapes = lambda fn, *args: jax.tree.map(everywhere, jax.eval_shape(fn, *args))
    table = _shaped(mesh, (rows.examples, rows.length), np.int32, DATA)
    numbers = _shaped(mesh, (rows.examples,), np.int32, DATA)
    batch: Any = Batch(numbers, table, table)  # pyright: ignore[reportArgumentType]
    zeros = lambda lora: step.Sums(jnp.zeros(()), jax.tree.map(jnp.zeros_like, lora))
    sums = shapes(zeros, parts.lora)
    key: Any = shapes(lambda: jax.random.key(0))
    optimizer = FinetuneConfig(epochs=100, learning_rate=1e-4).optimizer(1000)
    state: PyTree = shapes(optimizer.init, parts.lora)
    most = rows.scored
    return {
        "training": lambda: step.accumulate.trace(parts, sums, batch, key, most=most),
        "update": lambda: step.update.trace(
            optimizer, parts.lora, state, sums, np.float32(1)
        ),
        "validation": lambda: step.loss_sum.trace(parts, batch, most=most),
    }


def _shaped(mesh: Mesh, shape: tuple[int, ...], dtype: Any, *spec: str) -> Any:
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
