"""The plan of a job: by formulas, and by the compiler's word where it is installed."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from goracs_jax.ahead.compile_job import Job, compile_elsewhere, compile_here
from goracs_jax.ahead.topology import PER_HOST, no_compiler
from goracs_jax.errors import InputError
from goracs_jax.files import write_json
from goracs_jax.jobs.plan_config import PlanConfig
from goracs_jax.jobs.plan_stages import StagePlan, examples_of, stages_of
from goracs_jax.llm.memory import FILLED
from goracs_jax.runs.say import say, waiting

#: The programs of each stage, as patterns of their names.
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "gradient-norms": ("last_v_lora_b",),
    "training embeddings": ("embedding",),
    "validation embeddings": ("embedding",),
    "selection goracs": ("selection .*",),
    "finetune": ("training", "update", "validation"),
}


class Planned(NamedTuple):
    """The plan of a job."""

    config: PlanConfig
    stages: dict[str, StagePlan]
    notes: list[str]  # what is wrong, or why nothing was compiled

    def save(self, out: Path, made: Mapping[str, Any]) -> None:
        """Write plan.json and show its table.

        Args:
            out: The folder.
            made: What made it, as `made_by` gives it.
        """
        c = self.config
        record = {
            **made,
            "topology": {
                "name": c.topology.name,
                "kind": c.topology.kind.name,
                "devices": c.topology.devices,
                "memory_gib": c.topology.kind.memory / 2**30,
            },
            "padded_tokens": c.length,
            "scored_tokens": c.scored,
            "dtype": c.dtype,
            "remat": c.remat,
            "hours_are": "[by published peaks, at 30 % of them and waiting for memory "
            "and exchanges]",
            "notes": self.notes,
            "stages": {name: stage._asdict() for name, stage in self.stages.items()},
        }
        write_json(out / "plan.json", record)
        self.show()
        say(f"{out / 'plan.json'}")

    def show(self) -> None:
        """Show the notes and the table."""
        for note in self.notes:
            say(note)
        say(table(self.stages))


def run(config: PlanConfig, *, compile: bool) -> Planned:
    """Plan a job, by the compiler's word where it is installed.

    Args:
        config: The job.
        compile: Whether to compile the programs of the job.
    """
    records: list[dict[str, Any]] = []
    reason = no_compiler(config.topology) if compile else "not asked for"
    if not reason:
        name = config.topology.name
        say(f"compiling for {name}, which takes minutes; --no-compile leaves it out")
        try:
            with waiting(f"compiling for {name}"):
                for record in _compile(config):
                    records.append(record)  # kept, whatever happens to the next
        except InputError as error:
            reason = str(error)
            # Nobody knows how many of these are missing.
            records = [r for r in records if not r["program"].startswith("selection")]
    memory = config.topology.kind.memory
    stages, notes = with_compiler(stages_of(config), records, memory)
    if reason:
        rest = "the rest is not compiled" if records else "nothing is compiled"
        notes.append(f"by formulas, {rest}: {reason}")
    notes += [_too_large(config, name, s) for name, s in stages.items() if not s.fits]
    return Planned(config, stages, notes + _idle(config))


def _too_large(config: PlanConfig, name: str, stage: StagePlan) -> str:
    ways = []
    if name == "finetune" and config.remat != "layers":
        ways.append("give --remat layers")
    if not name.startswith("selection") and config.data > 1:
        ways.append("raise --model-devices")
    ways.append("take more devices, or larger ones")
    memory = config.topology.kind.memory / 2**30
    return (
        f"{name} does not fit: {stage.gib_per_device:.1f} GiB a device are more than "
        f"{FILLED:.0%} of {memory:.1f}: {', or '.join(ways)}"
    )


def _idle(config: PlanConfig) -> list[str]:
    """Tell what of the devices a job does not use, or uses slower than is counted."""
    notes, step = [], min(config.batch_size, config.budget)
    if step < config.data:
        notes.append(
            f"finetune: a step of {step} examples leaves {config.data - step} of "
            f"{config.data} copies of the model idle: raise --batch-size, or take "
            "fewer devices"
        )
    kind, devices = config.topology.kind, config.topology.devices
    if kind.platform == "gpu" and devices > PER_HOST:
        notes.append(
            f"exchanges between machines of {PER_HOST} GPUs are counted at the speed "
            "of the links within one: they take longer"
        )
    return notes


def _compile(config: PlanConfig) -> Iterator[dict[str, Any]]:
    names = "|".join(name for names in PROGRAMS.values() for name in names)
    job = Job(
        topology=config.topology.name,
        model=str(config.path.resolve()),
        length=config.length,
        scored=config.scored,
        train_rows=config.train_rows,
        valid_rows=config.valid_rows,
        budget=config.budget,
        dtype=config.dtype,
        remat=config.remat,
        model_devices=config.model_devices,
        examples=examples_of(config),
        only=f"^({names})$",
    )
    if config.topology.name == "here":
        return compile_here(job, config.topology)
    return compile_elsewhere(job)


def with_compiler(
    stages: Mapping[str, StagePlan],
    records: Iterable[Mapping[str, Any]],
    memory: int,
) -> tuple[dict[str, StagePlan], list[str]]:
    """Put the compiler's memory into a plan.

    Args:
        stages: The plan by formulas.
        records: What the compiler says of programs; see
            `goracs_jax.ahead.compile_job`.
        memory: Bytes of a device.

    Returns:
        The plan, and what is wrong with its programs. A stage is compiled if all of its
        programs are.
    """
    found, notes, planned = list(records), [], dict(stages)
    for name, stage in stages.items():
        mine = [
            r for r in found if re.fullmatch("|".join(PROGRAMS[name]), r["program"])
        ]
        sizes = [r for r in mine if "temporaries" in r]
        peaks = [r["arguments"] + r["temporaries"] + r["outputs"] for r in sizes]
        there = [
            any(re.fullmatch(pattern, r["program"]) for r in sizes)
            for pattern in PROGRAMS[name]
        ]
        if len(sizes) == len(mine) and all(there):
            planned[name] = stage._replace(
                gib_per_device=max(peaks) / 2**30,
                fits=max(peaks) <= FILLED * memory,
                compiled=True,
            )
        for record in mine:
            wrong = [*record.get("findings", ()), *filter(None, [record.get("failed")])]
            notes += [f"{record['program']}: {finding}" for finding in wrong]
    return planned, list(dict.fromkeys(notes))


def table(stages: Mapping[str, StagePlan]) -> Table:
    """Make the table of a plan, in the 80 columns of a terminal."""
    found = Table(show_edge=False, pad_edge=False)
    found.add_column("stage", no_wrap=True)
    for head in ("GiB", "tokens", "FLOPs", "hours", "dollars"):
        found.add_column(head, justify="right", no_wrap=True)
    found.caption = "GiB and tokens of a batch on one device; * by the compiler's word"
    ends = lambda pair: "-".join(dict.fromkeys(map(_figure, pair)))
    for name, s in stages.items():
        found.add_row(
            name,
            f"{s.gib_per_device:.2f}" + ("*" if s.compiled else ""),
            f"{s.tokens_per_device:,}" if s.tokens_per_device else "",
            f"{s.flops:.1e}",
            ends(s.hours),
            ends(s.dollars),
        )
    flops, hours, dollars = (
        np.sum([getattr(s, name) for s in stages.values()], axis=0)
        for name in ("flops", "hours", "dollars")
    )
    found.add_row("all", "", "", f"{flops:.1e}", ends(hours), ends(dollars))
    return found


def _figure(x: float) -> str:
    """Write two digits of a number, without an exponent.

    >>> _figure(1234.0), _figure(0.0567), _figure(0.0)
    ('1,200', '0.057', '<0.001')
    """
    if x < 0.001:
        return "<0.001"
    rounded = float(f"{x:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"
