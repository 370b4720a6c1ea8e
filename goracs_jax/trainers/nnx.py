"""The loss of an nnx trainer as a pure function of its parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx
from jaxtyping import PyTree

from goracs_jax.errors import InputError
from goracs_jax.trainers.arguments import form_of


def nnx_loss(
    model: nnx.Module,
    loss_fn: Callable[..., Any],
    prepare: Callable[[Any], Mapping[str, Any]],
    wrt: Any = nnx.LoRAParam,
) -> tuple[Callable[[PyTree, PyTree, Any], Any], PyTree, PyTree]:
    """Make a pure loss of an nnx module and of its trainer's own loss.

    The trainer's loss is called as `loss_fn(model, **prepare(batch))`, with a batch of
    one example: its arrays have a leading axis of 1. What a trainer calls so is tunix's
    `trainer.loss_fn` and `trainer.gen_model_input_fn`.

    The whole model runs. To take the gradient of one matrix alone, give a narrower
    `wrt`: qwix adds LoRA where the whole model is called, so a call of its last layers
    would leave it out. Dropout draws the same for every example; `model.eval()` turns
    it off.

    Args:
        model: The module.
        loss_fn: From the model and what `prepare` returns to a scalar, or a scalar and
            aux.
        prepare: From a batch to the keyword arguments of the loss.
        wrt: What the gradient is taken of: a type of `nnx.Variable` or a filter of
            `nnx.split`, such as `nnx.All(nnx.LoRAParam, nnx.PathContains("v_proj"))`.

    Returns:
        The first arguments of `goracs_jax.example_gradients`: loss_fn, params, frozen.

    Raises:
        InputError: The filter finds nothing in the model; when the loss is called,
            `prepare` returns no mapping.

    >>> model = nnx.Linear(2, 1, use_bias=False, rngs=nnx.Rngs(0))
    >>> square = lambda model, x: (model(x) ** 2).sum()
    >>> loss_fn, params, _ = nnx_loss(model, square, lambda x: {"x": x}, nnx.Param)
    >>> jax.tree.map(jax.numpy.shape, jax.tree.leaves(params))
    [(2, 1)]
    """
    graph, params, frozen = nnx.split(model, wrt, ...)
    if not jax.tree.leaves(params):
        raise InputError(
            f"{type(model).__name__} has nothing that wrt={wrt} finds: add adapters "
            "first, or give another filter, such as wrt=nnx.Param."
        )

    def pure(params: PyTree, frozen: PyTree, example: Any) -> Any:
        batch = jax.tree.map(lambda leaf: leaf[None], example)
        given = prepare(batch)
        if not isinstance(given, Mapping):
            raise InputError(
                "prepare must return the keyword arguments of the loss as a dict, got "
                f"{form_of(given)}."
            )
        return loss_fn(nnx.merge(graph, params, frozen), **given)

    return pure, params, frozen
