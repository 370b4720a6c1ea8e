"""What is asked of a loss and its arguments before any work."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from goracs_jax.errors import InputError, one_line
from goracs_jax.trainers.arguments import form_of
from goracs_jax.trainers.examples import ExampleBatch, leaves_of

#: What to do about numbers that are not finite.
CURE = "check it, the weights and their type."

Forms = Sequence[tuple[int, PyTree[jax.ShapeDtypeStruct]]]


def check_arrays(params: PyTree, frozen: PyTree) -> None:
    """Refuse params that are not floats, and what is no array among frozen.

    Raises:
        InputError: Params has no leaf or one that is not a float, or frozen has one
            that is no number.

    >>> check_arrays({"w": jnp.ones(2), "step": jnp.array(3)}, ())
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: params['step'] is int32: a gradient is taken of ...
    """
    floats = leaves_of(params)
    if not floats:
        raise InputError(
            "params has no arrays: give the floats whose gradient is to be taken."
        )
    for path, leaf in floats:
        if not _is_number(leaf) or not jnp.issubdtype(
            jnp.result_type(leaf), jnp.floating
        ):
            raise InputError(
                f"params{path} is {_kind(leaf)}: a gradient is taken of floats alone, "
                "so put it into frozen."
            )
    for path, leaf in leaves_of(frozen):
        if not _is_number(leaf):
            raise InputError(
                f"frozen{path} is {_kind(leaf)}, no array: let the loss close over it, "
                "and keep arrays in frozen."
            )


def form_of_aux(
    loss_fn: Callable, has_aux: bool, params: PyTree, frozen: PyTree, forms: Forms
) -> PyTree[jax.ShapeDtypeStruct]:
    """Trace a loss of one example of each shape, and return the form of its aux.

    Args:
        loss_fn: The loss.
        has_aux: Whether it is said to return aux.
        params: Its parameters.
        frozen: Its other arrays.
        forms: The first example of each shape, as of `examples.forms_of`.

    Raises:
        InputError: It does not return a scalar float, or a pair if it has aux, or not
            aux of one form for all examples.
    """

    def aux_of(example: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
        found = _traced("loss_fn", loss_fn, params, frozen, example)
        aux = None
        if has_aux:
            if not isinstance(found, tuple) or len(found) != 2:
                raise InputError(
                    "with has_aux=True loss_fn returns (loss, aux), got "
                    f"{form_of(found)}."
                )
            found, aux = found
        scalar = getattr(found, "shape", None) == ()
        if not scalar or not jnp.issubdtype(found.dtype, jnp.floating):
            cure = "" if has_aux else "; give has_aux=True if it is (loss, aux)"
            raise InputError(
                "loss_fn must return one float for one example, without a batch axis, "
                f"got {form_of(found)}: take the mean over its tokens{cure}."
            )
        return aux

    return _one_form("aux", aux_of, forms)


def length_of_vectors(fn: Callable, forms: Forms) -> int:
    """Trace a function of one example of each shape, and return how long its vector is.

    Args:
        fn: From one example to its embedding.
        forms: As for `form_of_aux`.

    Raises:
        InputError: It does not return one vector of floats, as long for all examples.

    >>> length_of_vectors(jnp.tanh, [(1, jax.ShapeDtypeStruct((3,), jnp.float32))])
    3
    """

    def vector_of(example: PyTree) -> jax.ShapeDtypeStruct:
        found = _traced("fn", fn, example)
        vector = len(getattr(found, "shape", ())) == 1
        if not vector or not jnp.issubdtype(found.dtype, jnp.floating):
            raise InputError(
                "fn must return one vector of floats for one example, without a batch "
                f"axis, got {form_of(found)}."
            )
        return found

    return _one_form("the embedding", vector_of, forms).size


def _traced(name: str, fn: Callable, *given: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    """Trace a function, without running it; refuse what is no array in its result."""

    def arrays(*given: PyTree) -> PyTree:
        found = fn(*given)
        for path, leaf in leaves_of(found):
            kind = jnp.result_type(leaf) if _is_number(leaf) else jax.dtypes.extended
            if jnp.issubdtype(kind, jax.dtypes.extended):
                raise InputError(
                    f"what {name} returns has {_kind(leaf)}{path and f' at {path}'}, "
                    "no array of numbers: leave it out."
                )
        return found

    return jax.eval_shape(arrays, *given)


def _one_form(what: str, of: Callable[[PyTree], PyTree], forms: Forms) -> PyTree:
    """Return the form of what a function makes of each example, if it is one form."""
    (first, example), *others = forms
    form = of(example)
    for number, example in others:
        try:
            other = of(example)
        except Exception as error:
            raise InputError(
                f"example {number} is of another form than example {first}, and fails: "
                f"{type(error).__name__}: {one_line(error)}"
            ) from error
        if _differs(form, other):
            raise InputError(
                f"{what} of example {number} is {_told(other)}, that of example "
                f"{first} {_told(form)}: make it one form for all examples."
            )
    return form


def _differs(one: PyTree, other: PyTree) -> bool:
    same = jax.tree.structure(one) == jax.tree.structure(other)
    return not same or described(one) != described(other)


def _told(form: PyTree) -> str:
    told = [f"{path} {form_of(leaf)}".strip() for path, leaf in leaves_of(form)]
    return ", ".join(told) or "empty"


def described(tree: PyTree) -> list:
    """Return path, shape and type of each leaf, as a JSON value."""
    known = lambda leaf: hasattr(leaf, "dtype") or _is_number(leaf)
    kind = lambda leaf: str(jnp.result_type(leaf)) if known(leaf) else ""
    return [[path, list(np.shape(leaf)), kind(leaf)] for path, leaf in leaves_of(tree)]


def described_batches(batches: Sequence[ExampleBatch]) -> dict[str, int]:
    """Return how many examples there are of each shape; not in which batches."""
    counts: dict[str, int] = {}
    for batch in batches:
        of = str(batch.shape[1])
        counts[of] = counts.get(of, 0) + batch.num_examples
    return counts


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float)


def _kind(leaf: Any) -> str:
    return str(getattr(leaf, "dtype", type(leaf).__name__))
