"""The table of what `goracs check` finds in testbeds."""

from typing import Any

from common import RESULTS
from figures import load, markdown
from testbeds_pools import TESTBEDS

TEXT, GRADIENT = "text", "gradient/cosine"


def checks() -> str:
    """Return how each space and reward ranks the losses, by testbed and seed."""
    rows = [
        [
            *(name, seed, str(found["sizes"]["subsets"]), reliability(found)),
            *(f"{kind} {score}", shown(told["lds"])),
        ]
        for name in checked()
        for seed, found in load(f"check_{name}")["seeds"].items()
        for kind in ("space", "reward")
        for score, told in found[f"{kind}s"].items()
    ]
    head = ["testbed", "seed", "subsets", "ICC of a loss", "score", "LDS"]
    return "\n".join([*markdown(head, rows), "", NOTE])


NOTE = (
    "The linear datamodelling score (LDS): Spearman's correlation of POO, or of minus "
    "the mean reward, with the judge's loss, over subsets of the pool, corrected for "
    "the reliability of a loss, with a bootstrap interval of 95 % "
    "(`benchmarks/testbeds_check.py`)."
)


def in_short() -> str:
    """Return one sentence about the mixed pool."""
    found = load("check_mixture")["seeds"]["0"]
    subsets, spaces = found["sizes"]["subsets"], found["spaces"]
    text, gradient = (shown(spaces[name]["lds"]) for name in (TEXT, GRADIENT))
    return (
        f"In mixture, POO between gradients ranks the losses of {subsets} subsets with "
        f"a correlation of {gradient}, POO between texts with {text} (one pool, "
        "`goracs check`)."
    )


def checked() -> list[str]:
    """Return the testbeds that were checked."""
    return [name for name in TESTBEDS if (RESULTS / f"check_{name}.json").exists()]


def reliability(found: dict[str, Any]) -> str:
    """Return the intraclass correlation of a loss with its interval."""
    icc = found["reliability"]
    return shown({"value": icc["icc"], **icc})


def shown(estimate: dict[str, Any]) -> str:
    """Return a value and its interval."""
    return "{value:.2f} [{low:.2f}, {high:.2f}]".format(**estimate)
