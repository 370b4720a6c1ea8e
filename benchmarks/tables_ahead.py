"""Tables of the programs that were compiled for devices that are not there."""

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from figures import load, markdown

from goracs_jax.ahead.topology import parse
from goracs_jax.llm.memory import Memory, Rows, pass_memory
from goracs_jax.llm.work import pass_flops
from goracs_jax.models import DecoderConfig, LoraConfig, decoder_config

Entries = dict[str, dict[str, Any]]
#: Processes at a time beside which seconds mean nothing; two compile, with threads.
BUSY = 6


def ahead() -> str:
    """Return what the compilers say of every program, and of the formulas."""
    figures = load("ahead")
    entries: Entries = figures["entries"]
    done = {key: e for key, e in entries.items() if "temporaries" in e}
    parts = [
        *_memory(entries),
        *_formulas(done, figures["models"]),
        *_exchanges(done),
        *_findings(entries),
    ]
    timed = [e["seconds"] for e in done.values() if not _busy(e)]
    parts.append(
        f"\n{len(done)} programs were compiled, {len(timed)} of them in "
        f"{sum(timed) / 60:.0f} minutes without other work, two "
        f"topologies at a time on {figures['cores']} cores (`benchmarks/ahead.py`, "
        "`make ahead`)."
    )
    return "\n".join(parts)


def launches() -> str:
    """Return what a selection of Games takes on one H100, program by program."""
    figures = load("launches")
    rows = []
    for row in figures["rows"]:
        runs = [f"{x:g}" for x in row["runs"]]
        kinds = ("launch_seconds", "moving_seconds", "product_seconds")
        seconds = [f"{row[kind]:.3f}" for kind in kinds]
        cells = [" to ".join(dict.fromkeys(runs)), f"{row['kernels']:,.0f}"]
        rows.append([row["program"], *cells, f"{row['gib']:,.1f}", *seconds])
    ends = ("launches, s", "bytes, s", "products, s")
    head = ["program", "runs", "kernels", "GiB", *ends]
    ends_of = lambda two, digits: (f"{x:.{digits}f}" for x in two)
    pair = lambda two, digits=0: " to ".join(dict.fromkeys(ends_of(two, digits)))
    counts = [figures[end]["transports"] for end in ("least", "most")]
    return "\n".join(
        [
            *markdown(head, rows),
            f"\n{figures['budget']:,} of {figures['train']:,} rows for "
            f"{figures['valid']:,} of {figures['dim']} dimensions: kernels, bytes and "
            "seconds are those of one run. An estimate, of which nothing is measured: "
            "3 microseconds a launch, published peaks for bytes and products, one "
            f"after the other, make {pair(figures['device'], 1)} s on the device. The "
            f"{pair(counts)} transports of the search are Sinkhorn's, with "
            "as many iterations as smaller real rows took. Then the host solves the "
            "last subset exactly, and deals units where there is an annealing: about "
            f"{pair(figures['host'], 1)} s, at "
            f"{figures['exact_seconds']:.1f} s measured "
            "here from good potentials, where a cold start takes "
            f"{figures['exact_cold_seconds']:.1f} s. What NumPy does between programs "
            "is not counted (`benchmarks/launches.py`).",
        ]
    )


def _split(key: str) -> tuple[str, str, str]:
    model, topology, program = key.split(" ", 2)
    return model, topology, program


def _columns(entries: Entries) -> tuple[list[str], list[str], list[str]]:
    """Return the models, topologies and programs, in the order of the file."""
    parts = [_split(key) for key in entries]
    first, second, third = (
        list(dict.fromkeys(names)) for names in zip(*parts, strict=True)
    )
    return first, second, third


def _memory(entries: Entries) -> Iterable[str]:
    models, topologies, programs = _columns(entries)
    yield (
        "GiB of a device and the share of its memory, at most 90 %, then the seconds "
        "of compiling, unless the machine had other work. Batches are the largest that "
        "fit by formula, with 512 tokens a row.\n"
    )
    for model in models:
        mine = [
            t for t in topologies if any(k.startswith(f"{model} {t} ") for k in entries)
        ]
        rows = [
            [program, *(_cell(entries.get(f"{model} {t} {program}"), t) for t in mine)]
            for program in programs
        ]
        yield from markdown([model, *mine], rows)
        yield ""


def _cell(entry: dict[str, Any] | None, topology: str) -> str:
    if entry is None:
        return ""
    if "temporaries" not in entry:
        return "failed" if "failed" in entry else "too large"
    peak = _peak(entry)
    share = peak / parse(topology).kind.memory
    found = f"{peak / 2**30:.2f} ({share:.0%})"
    return found if _busy(entry) else f"{found}, {entry['seconds']:.0f} s"


def _busy(entry: dict[str, Any]) -> bool:
    """Tell whether a program was compiled on a machine with other work."""
    return entry.get("load", 0) > BUSY


def _peak(sizes: dict[str, Any]) -> int:
    return sizes["arguments"] + sizes["temporaries"] + sizes["outputs"]


def _formulas(done: Entries, models: dict[str, dict[str, Any]]) -> Iterable[str]:
    """Compare the formulas with the compilers, pass by pass."""
    by_pass: dict[str, list[tuple[dict[str, Any], Memory, float]]] = {}
    configs = {name: _config(sizes) for name, sizes in models.items()}
    for key, entry in done.items():
        if "rows" in entry:
            model, topology, name = _split(key)
            given = configs[model], LoraConfig(), name.removesuffix(" projected")
            way = {"model_devices": 1, "dtype": "bfloat16", "remat": "products"}
            placed = Rows(**entry["rows"]), parse(topology).placement(**way)
            memory, flops = pass_memory(*given, *placed), pass_flops(*given, *placed)
            by_pass.setdefault(name, []).append((entry, memory, flops))
    rows = []
    for name, mine in by_pass.items():
        ratios = {
            "arguments": [m.arguments / e["arguments"] for e, m, _ in mine],
            "peak": [m.peak / _peak(e) for e, m, _ in mine],
            "flops": [f / e["flops"] for e, _, f in mine if e["flops"]],
        }
        rows.append([name, str(len(mine)), *map(_range, ratios.values())])
    yield "Formula over compiler, the least and the greatest of all topologies.\n"
    yield from markdown(["pass", "programs", "arguments", "peak memory", "FLOPs"], rows)
    yield ""


def _config(sizes: dict[str, Any]) -> DecoderConfig:
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(sizes))
        return decoder_config(folder)


def _range(ratios: list[float]) -> str:
    return f"{min(ratios):.3f} to {max(ratios):.3f}" if ratios else "not counted"


def _exchanges(done: Entries) -> Iterable[str]:
    """Count what devices exchange in each program, on the topologies with several."""
    rows = []
    for key, entry in done.items():
        if entry["exchanges"]:
            told = ", ".join(
                f"{times} {kind} ({size / 2**20:,.1f} MiB)"
                for kind, (times, size) in sorted(entry["exchanges"].items())
            )
            rows.append([*_split(key), told])
    yield (
        "Exchanges of one run of a program: how many, and what a device gets, with the "
        "rounds of loops where the compiler knows them.\n"
    )
    yield from markdown(["model", "topology", "program", "exchanges"], rows)
    yield ""


def _findings(entries: Entries) -> Iterable[str]:
    rows = [
        [*_split(key), finding]
        for key, entry in entries.items()
        for finding in entry.get("findings", [entry.get("failed", "not one row fits")])
    ]
    if not rows:
        yield (
            "No program holds the examples of other devices, has numbers of 64 bits, "
            "calls the host, multiplies by the parts of a weight as they arrive, "
            "gathers rows or blocks of C, or fills more than 90 %."
        )
        return
    yield "What does not hold:\n"
    yield from markdown(["model", "topology", "program", "finding"], rows)
