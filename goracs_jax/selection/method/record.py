"""What a method of selection is: how it chooses, and what is known before it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from numbers import Real
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    get_args,
    runtime_checkable,
)

from goracs_jax.choices import BoundKind
from goracs_jax.errors import InputError

if TYPE_CHECKING:
    import jax

    from goracs_jax.selection.problem import Problem, Selection

Need = Literal["embeddings", "grad_norms", "prediction_errors", "rewards"]
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


@runtime_checkable
class Searching(Protocol):
    """A method whose search can be longer or shorter, and which bounds POO."""

    def searching(self, effort: float, bound: str | None) -> Method:
        """Return the method with other settings.

        Args:
            effort: Multiplier on the work of its search.
            bound: How much work its lower bound gets; None for what it is set to.
        """
        ...


#: The least and the largest effort.
EFFORTS = (0.1, 10.0)


def with_search(
    method: Method, effort: float = 1.0, bound: str | None = None
) -> Method:
    """Return a method with an effort and a bound, as `goracs` has them.

    Raises:
        InputError: They are no such values, or the method has neither.

    >>> first = FunctionMethod(name="first", choose=print, about="The first n rows.")
    >>> with_search(first, 0.5)
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: method first has no search to scale and no bound: ...
    """
    least, most = EFFORTS
    if not (isinstance(effort, Real) and least <= effort <= most):
        raise InputError(f"effort must be in [{least}, {most:g}], got {effort!r}.")
    if bound is not None and bound not in get_args(BoundKind):
        kinds = ", ".join(get_args(BoundKind))
        raise InputError(f"bound must be one of {kinds}, got {bound!r}.")
    if (effort, bound) == (1.0, None):
        return method
    if not isinstance(method, Searching):
        raise InputError(
            f"method {method.name} has no search to scale and no bound: leave effort "
            "and bound out, or choose goracs."
        )
    return method.searching(effort, bound)


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
    space: str = "text"
    reward: str = "grad-norm"
    heeds: bool = False
    """Whether it heeds wishes (`Problem.wishes`) and the weights of validation rows."""


class Home(NamedTuple):
    """Where a method chooses if nothing else is asked for.

    Python's front doors take arrays, which are in a space already: there `space` says
    what the method's authors gave it.
    """

    space: str  # the name of a space, such as gradient/none/cosine
    reward: str  # the name of a reward, such as grad-norm


def home_of(method: Method) -> Home:
    """Read the home of a method: its attributes `space` and `reward`, if it has them.

    They are no part of `Method`, so that a method of another package need not know of
    them.

    >>> from goracs_jax.selection.method import METHODS
    >>> home_of(METHODS["less"]), home_of(METHODS["goracs"])
    (Home(space='gradient/none/cosine', reward='grad-norm'), Home(space='text', ...
    """
    space = getattr(method, "space", "text")
    return Home(space, getattr(method, "reward", "grad-norm"))


def imported(module: str, name: str) -> Callable[..., Any]:
    """Return a function of a module of `selection`, which its first call imports.

    >>> imported("baselines.random", "random").__name__
    'choose'
    """

    def choose(*args: Any, **kwargs: Any) -> Any:
        home = import_module(f"goracs_jax.selection.{module}")
        return getattr(home, name)(*args, **kwargs)

    return choose


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
