"""Compile the programs of a job for a topology, in a process of its own.

    python -m goracs_jax.ahead.compile_job JOB

JOB is a `Job` as JSON. Each program is one line of JSON on standard output, as soon as
it is compiled.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from os import environ
from typing import Any, NamedTuple

from goracs_jax.ahead.topology import ENVIRONMENT, Topology, compiler_devices, parse
from goracs_jax.choices import Remat
from goracs_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is compiled.

    Args:
        topology: Its name; see `goracs_jax.ahead.topology.parse`.
        model: Path of the model, of which config.json is enough.
        length: Padded tokens of an example.
        scored: Largest number of scored tokens of an example.
        train_rows: N.
        valid_rows: M.
        budget: n.
        dtype: The type of the frozen weights and the activations.
        remat: What a backward pass keeps.
        model_devices: Devices that share one copy of the model.
        examples: Rows of a batch on one device, by pass; the most that fit where a pass
            is not named.
        label: What comes before the names of programs where `only` looks for them.
        only: A pattern; programs whose label and name lack it are left out.
        known: Fingerprints of programs that need not be compiled again, by name.
    """

    topology: str
    model: str
    length: int
    scored: int
    train_rows: int
    valid_rows: int
    budget: int
    dtype: str = "bfloat16"
    remat: Remat = "products"
    model_devices: int = 1
    examples: Mapping[str, int] = field(default_factory=dict)
    label: str = ""
    only: str = ""
    known: Mapping[str, str] = field(default_factory=dict)


class _Program(NamedTuple):
    """A program, what it may exchange, and the shape of its batch."""

    name: str
    trace: Callable[[], Any]
    exchanged: int  # bytes of the largest array that it may exchange
    asked: dict[str, Any]
    batch: Any = None
    rounds: int = 1  # of a loop that ends by a condition


def compile_elsewhere(job: Job) -> Iterator[dict[str, Any]]:
    """Compile a job in a process of its own, which does not see the devices at hand.

    Args:
        job: The job.

    Yields:
        What the compiler says of a program.

    Raises:
        InputError: The compiler does not know the topology, or the process failed.
    """
    command = [sys.executable, "-m", __name__, json.dumps(asdict(job))]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            env=environ | ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if code:
            errors.seek(0)
            last = errors.read().strip().splitlines()[-1:]
            raise InputError("".join(last) or f"the compiler ended with code {code}.")


def compile_here(job: Job, topology: Topology) -> Iterator[dict[str, Any]]:
    """Compile a job in this process.

    Args:
        job: The job.
        topology: The devices.

    Yields:
        What the compiler says of a program; of one that is known, its batch alone.
    """
    from goracs_jax.ahead.checks import findings
    from goracs_jax.ahead.compiled import compile_program
    from goracs_jax.ahead.fingerprint import fingerprint

    devices = list(compiler_devices(topology))
    for program in _programs(job, topology, devices):
        name = job.label + program.name
        if not re.search(job.only, name):
            continue
        record: dict[str, Any] = {"program": program.name, **program.asked}
        bounds = {
            "memory": topology.kind.memory,
            "exchanged": program.exchanged,
            "batch": program.batch,
        }
        try:
            traced = program.trace()
            lowered = traced.lower()
            record["fingerprint"] = fingerprint(lowered, bounds, program.rounds)
            if record["fingerprint"] == job.known.get(program.name):
                yield record
                continue
            report = compile_program(traced, lowered, rounds=program.rounds)
        except Exception as error:  # noqa: BLE001 (compilers raise what they like)
            yield record | {"failed": " ".join(str(error).split())[:400]}
            continue
        by_kind: dict[str, list[int]] = {}
        for exchange in report.exchanges:
            found = by_kind.setdefault(exchange.kind, [0, 0])
            found[0] += exchange.times
            found[1] += exchange.times * exchange.bytes
        yield record | {
            "seconds": round(report.seconds, 1),
            "arguments": report.arguments,
            "temporaries": report.temporaries,
            "outputs": report.outputs,
            "flops": report.flops,
            "exchanges": by_kind,
            "findings": findings(report, **bounds),
        }


def _programs(job: Job, topology: Topology, devices: list[Any]) -> Iterator[_Program]:
    from goracs_jax.models import decoder_config

    config = decoder_config(job.model)
    yield from _of_the_model(job, topology, devices, config)
    yield from _of_the_selection(job, devices, config.hidden_size)


def _of_the_model(job, topology, devices, config) -> Iterator[_Program]:
    from goracs_jax.ahead.checks import Batch
    from goracs_jax.ahead.llm_programs import llm_programs
    from goracs_jax.llm.activations import NEW, Rows
    from goracs_jax.llm.memory import PASSES, largest_exchange
    from goracs_jax.mesh import model_mesh
    from goracs_jax.models import LoraConfig
    from goracs_jax.models.decoder import with_execution
    from goracs_jax.models.sharding import abstract_decoder

    lora, data = LoraConfig(), topology.devices // job.model_devices
    placement = placement_of(job, topology)
    mesh = model_mesh(devices, job.model_devices)
    model = abstract_decoder(config, mesh, lora=lora, dtype=job.dtype)
    model = with_execution(
        model,
        remat=placement.remat,
        vocab_block=placement.vocab_block,
        attention=placement.attention,
    )
    names = llm_programs(model, Rows(data, job.length, job.scored))
    for name in names:
        base = name.removesuffix(" projected")
        rows = Rows(job.examples.get(name, 1), job.length, job.scored)
        largest = base in PASSES and name not in job.examples
        if largest:
            rows = largest_rows(job, topology, config, name)
            if not rows.examples:
                yield _Program(name, _too_large, 0, {"too_large": True})
                continue
        asked = {"rows": rows._asdict()} if base in PASSES else {}
        whole = rows._replace(examples=rows.examples * data)
        batch = Batch(whole.examples, whole.length, data, config.hidden_size)
        trace = llm_programs(model, whole)[name]
        exchanged = largest_exchange(config, rows, placement)
        rounds = NEW - 1 if base == "generation" else 1
        # Other numbers of rows may be that of a weight's features.
        batch = batch if largest else None
        yield _Program(name, trace, exchanged, asked, batch, rounds)


def placement_of(job: Job, topology: Topology) -> Any:
    """Return how the passes of a job lie on the devices."""
    return topology.placement(
        model_devices=job.model_devices, dtype=job.dtype, remat=job.remat
    )


def largest_rows(job: Job, topology: Topology, config: Any, pass_name: str) -> Any:
    """Return the rows of the largest batch of a pass that fits on a device.

    Their number is odd where it is above one: then no axis of a weight is as long as
    all examples, which tells activations apart from weights.
    """
    from goracs_jax.ahead.llm_programs import PROJECTED
    from goracs_jax.llm.memory import Rows, fitting_tokens
    from goracs_jax.models import LoraConfig

    base = pass_name.removesuffix(" projected")
    row = Rows(1, job.length, job.scored, 0 if base == pass_name else PROJECTED)
    fitting = fitting_tokens(
        config,
        LoraConfig(),
        base,
        row,
        placement_of(job, topology),
        memory_bytes=topology.kind.memory,
    )
    examples = fitting // job.length
    return row._replace(examples=examples - (examples > 1 and examples % 2 == 0))


def _of_the_selection(job: Job, devices: list[Any], dim: int) -> Iterator[_Program]:
    from goracs_jax.ahead.selection_programs import selection_programs
    from goracs_jax.mesh import row_mesh

    programs = selection_programs(
        job.train_rows, job.valid_rows, dim, job.budget, row_mesh(devices)
    )
    # Two numbers for every row, the rows listed for every point, and the embeddings of
    # the subset. Other embeddings and blocks of C stay where they are.
    kept = max(8 * job.train_rows, 8 * 32 * job.valid_rows, 4 * job.budget * dim)
    for name, trace in programs.items():
        # These bring the rows that a search is about to every device: it is their aim.
        gathers = name in ("train_rows", "centred_rows", "cost_rows")
        exchanged = sys.maxsize if gathers or len(devices) == 1 else kept
        yield _Program(f"selection {name}", trace, exchanged, {})


def _too_large() -> Any:
    raise InputError("not even one example fits.")


def main(arguments: list[str]) -> int:
    """Compile the job of the command line; a mistake is one line on standard error."""
    job = Job(**json.loads(arguments[0]))
    try:
        for record in compile_here(job, parse(job.topology)):
            sys.stdout.write(json.dumps(record) + "\n")
            sys.stdout.flush()
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
