"""What a check says at its end, in a sentence and in flags of `goracs select`."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from goracs_jax.check.examine import Examined
from goracs_jax.check.inputs import Given
from goracs_jax.check.reliability import LEAST_ICC
from goracs_jax.jobs.select_config import LLM_SOURCES
from goracs_jax.spaces import Space

#: What lambda is kept within: beyond, one of the two terms decides alone.
LAMBDAS = (0.01, 5.0)


class Recommended(NamedTuple):
    """The verdict in words, and the flags that follow; None where none does."""

    text: str
    flags: str | None
    lambda_: float | None  # where a reward ranks the losses


def recommend(found: Examined, given: Given) -> Recommended:
    """Turn a verdict into flags.

    Args:
        found: What the check found.
        given: The flags under which it was found.
    """
    verdict = found.verdict
    if verdict is None:
        return Recommended(
            "Two trainings of one subset differ about as much as those of two subsets "
            f"(ICC {found.reliability.icc:.2f}, below {LEAST_ICC}): no choice of "
            "examples can be seen in this loss. Train longer, choose more examples, or "
            "give more validation examples.",
            None,
            None,
        )
    space, reward = verdict.space, verdict.reward
    if space is None and reward is None:
        return Recommended(
            "No space and no reward ranks the losses better than chance: choose at "
            "random.",
            " ".join(["--method random", *given.by_label]),
            None,
        )
    lambda_ = 0.0
    if reward:
        spaces, rewards = found.scores["spaces"], found.scores["rewards"]
        losses = [loss for run, loss in sorted_subsets(found)]
        poo = spaces[space or next(iter(spaces))]
        lambda_ = best_lambda(*map(np.array, (poo, rewards[reward], losses)))
    named = [f"distances in the space {space}"] * bool(space)
    named += [f"the reward {reward}"] * bool(reward)
    chosen = Space.named(space or next(iter(found.scores["spaces"])))
    flags = ["--space", chosen.sources]
    flags += ["--transform", chosen.transform] * (chosen.transform != "none")
    flags += ["--metric", chosen.metric] * (chosen.metric != "euclidean")
    flags += ["--reward", reward or "none", "--lambda", f"{lambda_:g}"]
    flags += [*given.by_text, *given.by_label]
    if reward or not {part.name for part in chosen.parts}.isdisjoint(LLM_SOURCES):
        flags += given.by_llm
    verb = "rank" if space else "ranks"
    text = f"{' and '.join(named).capitalize()} {verb} the losses."
    return Recommended(text, " ".join(flags), lambda_ if reward else None)


def sorted_subsets(found: Examined) -> list[tuple]:
    """Return the subsets with their losses, in the order of the scores."""
    subsets = [pair for pair in found.runs if pair[0].part == "subsets"]
    return sorted(subsets, key=lambda pair: pair[0].place)


def best_lambda(
    poo: Float[np.ndarray, " subsets"],
    rewards: Float[np.ndarray, " subsets"],
    losses: Float[np.ndarray, " subsets"],
) -> float:
    r"""Return the lambda whose POO predicts the losses best, to one digit.

    POO with lambda is POO with lambda 0, less lambda times the mean reward, so that the
    coefficients of a least-squares fit

        loss ~ a + b (POO_0 - lambda mean r)

    give it as a quotient. It is kept in `LAMBDAS`; the fit is one more choice that the
    same losses make, and no test.

    Args:
        poo: POO_0 of each subset.
        rewards: Minus the mean of r / max|r|.
        losses: The losses.

    >>> rng = np.random.default_rng(0)
    >>> poo, rewards = rng.normal(size=(2, 50))
    >>> best_lambda(poo, rewards, 3 + 2 * (poo + 0.5 * rewards))
    0.5
    """
    columns = np.stack([np.ones(len(poo)), poo, rewards], axis=1)
    _, of_poo, of_reward = np.linalg.lstsq(columns, losses)[0]
    low, high = LAMBDAS
    if of_poo <= 0:
        return high
    return float(f"{np.clip(of_reward / of_poo, low, high):.1g}")
