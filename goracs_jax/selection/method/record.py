"""What a method of selection is: how it chooses, and what is known before it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import jax

    from goracs_jax.selection.problem import Problem, Selection

Need = Literal["embeddings", "grad_norms", "prediction_errors"]
"""What a choice can depend on; each is computed for all examples before the choice."""


@runtime_checkable
class Method(Protocol):
    """A method of selection: any object with these five members.

    `FunctionMethod` makes one from a function; `Goracs` and the other built-in ones are
    frozen dataclasses of settings. A new method is usable as it is,
    `goracs(..., method=mine)`, and by its name everywhere once it is registered.
    """

    @property
    def name(self) -> str:
        """What flags, tables and files call it."""
        ...

    @property
    def about(self) -> str:
        """One plain sentence for help texts."""
        ...

    @property
    def needs(self) -> tuple[Need, ...]:
        """What its choice depends on, whatever lambda is (see `needs_of`)."""
        ...

    @property
    def weighed(self) -> bool:
        """Whether its choice depends on lambda, the weight of the gradient norms."""
        ...

    def choose(
        self, problem: "Problem", budget: int, *, key: "jax.Array"
    ) -> "Selection":
        """Choose `budget` training rows of the problem.

        Args:
            problem: The cost matrix, the transport solver, and scores of the rows.
            budget: n, in [1, N].
            key: Draws all random numbers: equal keys give equal selections.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FunctionMethod:
    """A method made from a function `choose(problem, budget, *, key) -> Selection`.

    >>> first = FunctionMethod(name="first", choose=print, about="The first n rows.")
    >>> first.needs, first.weighed
    (('embeddings',), False)
    """

    name: str
    choose: Callable[..., Any]
    about: str
    needs: tuple[Need, ...] = ("embeddings",)
    weighed: bool = False


def needs_of(method: Method, lambda_: float | None) -> tuple[Need, ...]:
    """Tell what the choice of a method depends on for one lambda.

    Gradient norms count where lambda weighs them; None stands for no lambda.

    >>> from goracs_jax.selection.method import METHODS
    >>> needs_of(METHODS["goracs"], 0.1), needs_of(METHODS["goracs"], 0.0)
    (('embeddings', 'grad_norms'), ('embeddings',))
    >>> needs_of(METHODS["random"], 0.1), needs_of(METHODS["grad-norm"], None)
    ((), ('grad_norms',))
    """
    if method.weighed and lambda_ and "grad_norms" not in method.needs:
        return (*method.needs, "grad_norms")
    return method.needs
