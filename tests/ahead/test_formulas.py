"""The formulas of memory and FLOPs against what the compilers of TPUs and GPUs said.

benchmarks/ahead.py wrote it down for every program of the main job.
"""

import json
from pathlib import Path

import pytest

from goracs_jax.ahead.topology import parse
from goracs_jax.llm.memory import PASSES, Rows, pass_memory
from goracs_jax.llm.work import pass_flops
from goracs_jax.models import LoraConfig, decoder_config

ROOT = Path(__file__).parents[2]
FOUND = json.loads((ROOT / "benchmarks" / "results" / "ahead.json").read_text())
PROGRAMS = [
    name
    for name, entry in FOUND["entries"].items()
    if "rows" in entry and "temporaries" in entry
]


def test_every_pass_is_there():
    names = {name.split(" ", 2)[2].removesuffix(" projected") for name in PROGRAMS}
    assert names == set(PASSES)


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    found = {}
    for name, config in FOUND["models"].items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.json").write_text(json.dumps(config))
        found[name] = decoder_config(folder)
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_formulas_are_near_the_compiler(program, configs):
    model, topology, name = program.split(" ", 2)
    said, config = FOUND["entries"][program], configs[model]
    placed = parse(topology).placement(
        model_devices=1, dtype="bfloat16", remat="products"
    )
    given = (config, LoraConfig(), name.removesuffix(" projected"))
    rows = Rows(**said["rows"])
    memory = pass_memory(*given, rows, placed)
    # Arguments are known but for the padding of a TPU.
    assert memory.arguments == pytest.approx(said["arguments"], rel=0.02)
    # A batch that is said to fit must fit; a third of a device may stay empty.
    peak = said["arguments"] + said["temporaries"] + said["outputs"]
    assert peak <= memory.peak <= 1.3 * peak
    if said[
        "flops"
    ]:  # compilers of GPUs do not count; others add what is not a product
        assert pass_flops(*given, rows, placed) == pytest.approx(said["flops"], rel=0.1)
