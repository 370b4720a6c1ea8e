"""What a selection depends on apart from its inputs: method, grid, space and reward."""

from dataclasses import dataclass, field
from typing import Any

from goracs_jax.choices import Scale
from goracs_jax.cost import check_lambda
from goracs_jax.errors import InputError
from goracs_jax.jobs.selected import GridPoint
from goracs_jax.selection.method import Method, find_method, home_of, with_search
from goracs_jax.selection.sweep import ordered
from goracs_jax.settings import Select
from goracs_jax.settings.times import seconds_of
from goracs_jax.spaces import Reward, Space

DEFAULT_LAMBDA = 0.1
#: The source of rows, and the reward, that are given as arrays.
GIVEN = "given"
#: Sources that take a pass of the language model with gradients over both sets.
GRADIENT, SUBSPACE = "gradient", "subspace"
#: All that take a pass of the language model, whatever embeds texts.
LLM_SOURCES = (GRADIENT, SUBSPACE, "states", "prompts")


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """What a search depends on, apart from its inputs."""

    method: Method
    budgets: tuple[int, ...]  # none where the budget is still to be found
    lambdas: tuple[float, ...]
    solver: str = "auto"
    seed: int = 0
    space: Space = field(default_factory=lambda: Space(GIVEN))
    scale: Scale = "max"
    reward: Reward = field(default_factory=lambda: Reward("grad-norm"))
    time_limit: float | None = None  # of each search; no result depends on it

    @classmethod
    def of(cls, settings: Select) -> "SelectConfig":
        """Take what a search depends on from the flags, and defaults from the method.

        Raises:
            InputError: A name, a lambda, a weight, an effort or a time is wrong.
        """
        s = settings
        method = with_search(find_method(s.method), s.effort, s.bound)
        texts = s.train_embeddings is None
        home, usual = Space.named(home_of(method).space), home_of(method).reward
        space = Space(
            (s.space or home.sources) if texts else GIVEN,
            s.transform or home.transform,
            s.metric or home.metric,
        )
        if usual == "grad-norm" and not (texts or s.grad_norms):
            usual = "none"
        reward = Reward(GIVEN) if s.rewards else Reward.named(s.reward or usual)
        weighs = reward.kind != "none" and (method.weighed or not texts)
        lambdas = (DEFAULT_LAMBDA if weighs else 0.0,)
        return cls(
            method=method,
            budgets=_numbers(s),
            lambdas=lambdas if s.lambda_ is None else s.lambda_,
            solver=s.solver,
            seed=s.seed,
            space=space,
            scale=s.scale,
            reward=reward,
            time_limit=None if s.time_limit is None else seconds_of(s.time_limit),
        )

    @property
    def points(self) -> list[GridPoint]:
        """Every budget with every lambda, in the order that shares most work."""
        return [GridPoint(*point) for point in ordered(self.budgets, self.lambdas)]

    @property
    def symbols(self) -> dict[str, tuple[str, str]]:
        """The symbols of the rows of both sets, by source; the first are x and y.

        >>> space = Space("text+states")
        >>> method = find_method("goracs")
        >>> given = {"method": method, "budgets": (1,), "lambdas": (0.0,)}
        >>> SelectConfig(**given, space=space).symbols
        {'text': ('x', 'y'), 'states': ('x2', 'y2')}
        """
        sources = [source.name for source in self.space.parts]
        read = self.reward_source
        if read and not {GIVEN, read} & {*sources}:
            sources.append(read)
        ends = ["", *map(str, range(2, len(sources) + 1))]
        return {
            name: (f"x{end}", f"y{end}")
            for name, end in zip(sources, ends, strict=True)
        }

    @property
    def by_norms(self) -> bool:
        """Whether gradient norms are needed: to weigh, or because the method ranks."""
        weighed = self.reward.kind == "grad-norm" and self.rewarded
        return weighed or "grad_norms" in self.method.needs

    @property
    def by_scores(self) -> bool:
        """Whether the norms or the prediction errors of the gradient pass are read."""
        return self.by_norms or "prediction_errors" in self.method.needs

    @property
    def reward_source(self) -> str | None:
        """The source whose rows the reward is computed from, if it is and counts."""
        return self.reward.source if self.rewarded else None

    @property
    def by_loss_drop(self) -> bool:
        """Whether the reward is the loss drop, and counts."""
        return self.reward.kind == "loss-drop" and self.rewarded

    @property
    def rewarded(self) -> bool:
        """Whether the reward counts: lambda weighs it, or the method ranks by it.

        A lambda that is given is honoured: it weighs in what is reported of any method.
        """
        return max(self.lambdas) > 0 or "rewards" in self.method.needs

    @property
    def identity(self) -> dict[str, Any]:
        """What all selections of this search depend on; defaults add nothing."""
        found = dict(self.space.identity)
        if self.scale != "max":
            found["scale"] = self.scale
        if self.reward_source:
            found["reward"] = str(self.reward)
        return found

    @property
    def told(self) -> dict[str, str]:
        """The flags of space and reward as they were resolved, for manifests."""
        space = self.space._asdict()
        return {"space": space.pop("sources"), **space, "reward": str(self.reward)}

    def check(self, n_valid: int) -> None:
        """Check what can be known before there are rows.

        Raises:
            InputError: As `Space.check`, or a lambda without a reward.
        """
        for lambda_ in self.lambdas:
            check_lambda(lambda_)
        if "rewards" in self.method.needs and self.reward.kind in ("none", "grad-norm"):
            raise InputError(
                f"--method {self.method.name} ranks by rewards: give --rewards, or "
                "--reward alignment, probe or loss-drop."
            )
        if max(self.lambdas) > 0 and self.reward.kind == "none":
            raise InputError(
                f"lambda {max(self.lambdas)} needs gradient norms or other rewards to "
                "weigh: give --grad-norms, --rewards or --reward, or no --lambda."
            )
        if self.reward.drop >= n_valid:
            raise InputError(
                f"--reward {self.reward} leaves out as many directions as {n_valid} "
                "validation examples have at most: give a smaller number."
            )
        self.space.check(n_valid)
        if not self.budgets and len(self.lambdas) > 1:
            raise InputError("--budget auto is found for one lambda: give one.")


def _numbers(s: Select) -> tuple[int, ...]:
    numbers = tuple(budget for budget in s.budget if isinstance(budget, int))
    if numbers and len(numbers) < len(s.budget):
        raise InputError("--budget must be auto or whole numbers, not both.")
    return numbers
