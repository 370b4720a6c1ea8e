"""The files of a check, check.json and check.png, and its table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from goracs_jax.check.examine import Examined
from goracs_jax.check.picture import check_figure
from goracs_jax.check.recommend import Recommended
from goracs_jax.evaluate.metrics import Estimate
from goracs_jax.files import together, write_json
from goracs_jax.runs.say import say
from goracs_jax.settings.outputs import CHECKED


def write(
    out: Path, found: Examined, advice: Recommended, made: Mapping[str, Any]
) -> None:
    """Write the files and print the table; all files or none.

    Args:
        out: The folder.
        found: What the check found.
        advice: What follows.
        made: What made it: settings, versions and machine, sizes and cost.
    """
    with together(out, CHECKED, seal="check.json") as new:
        check_figure(found).savefig(new / "check.png", dpi=110)
        write_json(new / "check.json", {**record_of(found, advice), **made})
    say(table_of(found))
    say(f"{out}: {', '.join(CHECKED)}")
    say(advice.text)
    if advice.flags:
        say(f"goracs select {advice.flags}")


def record_of(found: Examined, advice: Recommended) -> dict[str, Any]:
    """Return what was found as JSON has it.

    Args:
        found: What the check found.
        advice: What follows.
    """
    known, verdict = found.reliability, found.verdict
    runs = [
        {"part": r.part, "place": r.place, "seed": r.seed, "by": r.by, "tilt": r.tilt}
        | {"loss": loss}
        for r, loss in found.runs
    ]
    return {
        "reliability": known._asdict() | {"freedom": list(known.freedom)},
        **{kind: _names(found, kind) for kind in ("spaces", "rewards")},
        "verdict": {
            "space": verdict and verdict.space,
            "reward": verdict and verdict.reward,
            "lambda": advice.lambda_,
            "flags": advice.flags,
            "text": advice.text,
        },
        "runs": runs,
    }


def _names(found: Examined, kind: str) -> dict[str, dict[str, Any]]:
    """Return what is known of each space, or of each reward."""
    out = {}
    for name, planted in found.planted[kind].items():
        record: dict[str, Any] = {
            "planted_auc": planted.auc.value,
            "planted": planted.auc._asdict() | {"p": planted.p},
            "quantiles": None,
            "lds": None,
        }
        if kind == "spaces" and name in found.trends:
            record["quantiles"] = found.trends[name]._asdict()
        if found.verdict:
            agreement = found.agreements[kind][name]
            record["lds"] = agreement.corrected._asdict()
            record["lds_raw"] = agreement.raw._asdict()
            record["lds_above_first"] = agreement.above._asdict()
            record["p"] = agreement.p
            record["holm_p"] = found.verdict.holm_p[kind][name]
            record["scores"] = found.scores[kind][name]
        out[name] = record
    return out


def table_of(found: Examined) -> Table:
    """Make the table for the terminal: a row for each space and each reward.

    Args:
        found: What the check found.
    """
    known = found.reliability
    out = Table(
        caption=f"Reliability of a loss: ICC {known.icc:.2f} [{known.low:.2f}, "
        f"{known.high:.2f}]. LDS is corrected for it; p by Holm for all rows."
    )
    out.add_column("")
    for name in ("planted, AUC", "loss by distance, p", "LDS", "p"):
        out.add_column(name, justify="right")
    for kind in ("spaces", "rewards"):
        for name, planted in found.planted[kind].items():
            trend = found.trends.get(name) if kind == "spaces" else None
            cells = [_shown(planted.auc), f"{trend.p:.2g}" if trend else "-"]
            if found.verdict:
                cells.append(_shown(found.agreements[kind][name].corrected))
                cells.append(f"{found.verdict.holm_p[kind][name]:.2g}")
            else:
                cells += ["-", "-"]
            out.add_row(f"{kind[:-1]} {name}", *cells)
    return out


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
