"""Embeddings of examples by any function."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import core
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32

from goracs_jax.gradients.rows import check_finite
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.passes import Pass
from goracs_jax.models.execution import Execution
from goracs_jax.runs.outputs import bytes_to_store
from goracs_jax.runs.stages import Arrays
from goracs_jax.trainers.arguments import checked_mesh
from goracs_jax.trainers.checks import CURE, described_batches, length_of_vectors
from goracs_jax.trainers.examples import (
    example_batches,
    forms_of,
    placed,
)
from goracs_jax.trainers.kept import OUT, compute_or_read


def example_embeddings(
    fn: Callable[[Any], Float[Array, " dim"]],
    examples: Any,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    identity: Any = None,
    out: str | Path = OUT,
) -> Float32[np.ndarray, "examples dim"]:
    """Embed each example by a function of one example, x_i = fn(example_i).

    The function is vmapped over batches and compiled. Arrays that it closes over, such
    as the weights of a model, become arguments of the program.

    Args:
        fn: From one example to a vector, such as a mean over the hidden states of its
            tokens; all vectors are equally long.
        examples: As for `goracs_jax.example_gradients`.
        batch_size: As there.
        mesh: As there.
        identity: As there; it names the weights, too.
        out: As there.

    Returns:
        One row per example in float32, in input order.

    Raises:
        InputError: The function does not return one vector of floats, as long for all
            examples, or an argument is wrong.
        NumericalError: A row is not finite.

    >>> w = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    >>> example_embeddings(lambda x: w @ x, np.eye(2, dtype=np.float32)).tolist()
    [[1.0, 0.0], [2.0, 1.0]]
    """
    grid = checked_mesh(mesh)
    batches = example_batches(examples, batch_size, grid)
    dim = length_of_vectors(fn, forms_of(batches))
    run = Pass(_Vmapped(fn, grid), (), Execution(mesh=grid))

    def compute(mapper: Mapper) -> Arrays:
        x = mapper(run, batches)
        check_finite(x, "the embedding", CURE)
        return {"embeddings": x}

    inputs = {"examples": described_batches(batches), "dim": dim}
    needed = bytes_to_store(sum(batch.num_examples for batch in batches), dim)
    kept = compute_or_read("example-embeddings", identity, out, inputs, compute, needed)
    return kept["embeddings"]


class _Vmapped:
    """A vmapped and compiled function that takes what it closes over as arguments.

    `jax.jit` would make constants of such arrays: every program would contain the
    weights of the model once more.
    """

    def __init__(self, fn: Callable, mesh: Mesh | None):
        self.fn, self.mesh = jax.vmap(fn), mesh
        # By the form of the examples; and arrays on the mesh, by their originals.
        self.programs: dict[Any, tuple] = {}
        self.there: dict[int, Any] = {}

    def __call__(self, examples: Any) -> jax.Array:
        return _evaluate(*self.parts(examples))

    def lower(self, examples: Any) -> Any:
        """Lower the program for examples of this form, as `jax.jit` does."""
        return _evaluate.lower(*self.parts(examples))

    def parts(self, examples: Any) -> tuple:
        leaves, structure = jax.tree.flatten(examples)
        form = (structure, *((x.shape, str(x.dtype)) for x in leaves))
        if form not in self.programs:
            traced = jax.make_jaxpr(self.fn)(examples)
            for array in traced.consts:
                if id(array) not in self.there:
                    self.there[id(array)] = array, placed(array, self.mesh)
            closed = [self.there[id(array)][1] for array in traced.consts]
            self.programs[form] = traced.jaxpr, closed
        return *self.programs[form], leaves


@partial(jax.jit, static_argnums=0)
def _evaluate(jaxpr: Any, closed: list, leaves: list) -> Float32[Array, "batch dim"]:
    return core.eval_jaxpr(jaxpr, closed, *leaves)[0].astype(jnp.float32)
