"""Gradient norms, losses and projections of examples, for any pure loss."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, PyTree

from goracs_jax.gradients.projection import project
from goracs_jax.gradients.rows import check_finite, gradient_rows
from goracs_jax.llm.batches import Mapper
from goracs_jax.llm.passes import Pass
from goracs_jax.models.execution import Execution
from goracs_jax.runs.outputs import bytes_to_store
from goracs_jax.runs.stages import Arrays
from goracs_jax.trainers.arguments import checked_count, checked_mesh, key_parts
from goracs_jax.trainers.checks import (
    CURE,
    check_arrays,
    described,
    described_batches,
    form_of_aux,
)
from goracs_jax.trainers.examples import example_batches, forms_of, named, placed
from goracs_jax.trainers.kept import OUT, compute_or_read

Loss = Callable[[PyTree, PyTree, Any], Any]


class ExampleGradients(NamedTuple):
    """What `example_gradients` finds, one row per example, in input order."""

    norms: Float32[np.ndarray, " examples"]
    losses: Float32[np.ndarray, " examples"]
    aux: PyTree[np.ndarray]
    projected: Float32[np.ndarray, "examples dim"] | None


def example_gradients(
    loss_fn: Loss,
    params: PyTree,
    frozen: PyTree,
    examples: Any,
    *,
    has_aux: bool = False,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    project_dim: int | None = None,
    key: jax.Array | None = None,
    identity: Any = None,
    out: str | Path = OUT,
) -> ExampleGradients:
    r"""Compute g_i = || d L_i / d params ||_2 of each example, for any pure loss.

    L_i = loss_fn(params, frozen, example_i) is written for one example; it is vmapped
    over batches. Norms, losses and projections are float32 whatever the parameters'
    type, and a last batch that is not full changes nothing.

    With an identity, finished rows are kept in `out`, a killed run goes on after them,
    and a result that is there is read back. The identity must name the values of
    params, frozen and examples and the loss: only their shapes are compared beside it,
    so after a step of training give another.

    Args:
        loss_fn: From params, frozen and one example to a scalar, or a scalar and aux.
        params: A pytree of floats, whose gradient is taken. For Equinox, the first
            half of `eqx.partition(model, eqx.is_inexact_array)` or a part of it.
        frozen: A pytree of the other arrays that the loss reads. Arrays that the loss
            closes over become constants of the program: slow, and twice in memory.
        examples: A pytree of arrays [examples, ...] (NumPy's, memory-mapped, JAX's); or
            a list, or a data source with a length that gives an example by its number,
            of pytrees. Examples of equal shapes share batches and a program, so pad
            texts to a few lengths.
        has_aux: Whether loss_fn also returns aux, a pytree of arrays whose structure,
            shapes and types are the same for all examples.
        batch_size: Examples of a batch, over all devices; by default 8 on each.
        mesh: Examples go over its axis `data`. Params and frozen that are not on all
            of its devices are copied to each.
        project_dim: If given, gradients are also projected at random to this many
            numbers, as in `goracs_jax.gradients.projection.project`.
        key: The random key of the projection, of either kind that JAX has.
        identity: A name for the inputs, as text or any JSON value.
        out: The folder where results with an identity are kept.

    Returns:
        `.norms`, `.losses`, `.aux` (None without has_aux) and `.projected` (None
        without project_dim), of NumPy arrays.

    Raises:
        InputError: The loss is not a scalar, aux is not of one form for all examples,
            params has leaves that are not floats or none at all, or examples, mesh or
            another argument is no such thing.
        NumericalError: A norm or a loss is not finite; the first such example is named.

    >>> loss = lambda w, _, x: (w @ x) ** 2 / 2  # the gradient is (w . x) x
    >>> x = np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)
    >>> found = example_gradients(loss, jnp.ones(2), (), x)
    >>> found.norms.tolist(), found.losses.tolist()
    ([35.0, 4.0], [24.5, 2.0])
    """
    check_arrays(params, frozen)
    grid = checked_mesh(mesh)
    batches = example_batches(examples, batch_size, grid)
    aux = form_of_aux(loss_fn, has_aux, params, frozen, forms_of(batches))
    kind = words = None
    if project_dim is not None:
        project_dim = checked_count("project_dim", project_dim)
        kind, words = key_parts(key)
    settings = (loss_fn, has_aux, project_dim, kind)
    arguments = (words, placed(params, grid), placed(frozen, grid))
    run = Pass(_rows, (*settings, *arguments), Execution(mesh=grid))

    def compute(mapper: Mapper) -> Arrays:
        found = mapper(run, batches)
        # A norm bounds the projections: a sum of squares overflows long before they do.
        check_finite(found["norms"], "the gradient norm", CURE)
        check_finite(found["losses"], "the loss", CURE)
        return found

    inputs = {
        "examples": described_batches(batches),
        "params": described(params),
        "frozen": described(frozen),
        "aux": described(aux),
        "projection": words and [project_dim, str(kind), words],
    }
    width = 2 + (project_dim or 0) + sum(leaf.size for leaf in jax.tree.leaves(aux))
    needed = bytes_to_store(sum(batch.num_examples for batch in batches), width)
    kept = compute_or_read("example-gradients", identity, out, inputs, compute, needed)
    _, structure = jax.tree.flatten(aux)
    leaves = [kept[f"aux-{i}"] for i in range(structure.num_leaves)]
    return ExampleGradients(
        kept["norms"],
        kept["losses"],
        jax.tree.unflatten(structure, leaves),
        kept.get("projected"),
    )


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _rows(loss_fn, has_aux, dim, kind, words, params, frozen, examples):
    with_aux = loss_fn if has_aux else lambda *args: (loss_fn(*args), None)
    to_dim = None
    if dim is not None:
        key = jax.random.wrap_key_data(jnp.array(words, jnp.uint32), impl=kind)
        to_dim = partial(project, key=key, dim=dim)
    rows = gradient_rows(with_aux, params, frozen, examples, project=to_dim)
    found = {"norms": rows.norms, "losses": rows.losses}
    if rows.projected is not None:
        found["projected"] = rows.projected
    aux = enumerate(jax.tree.leaves(rows.aux))
    return found | {f"aux-{i}": named(leaf) for i, leaf in aux}
