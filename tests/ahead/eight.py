"""Programs on eight devices of a CPU, right ones and spoiled ones, as reports."""

import json
import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from goracs_jax.ahead.checks import Batch, findings
from goracs_jax.ahead.compiled import Report, compile_program
from goracs_jax.ahead.llm_programs import llm_programs
from goracs_jax.llm.memory import Rows, largest_exchange, pass_memory
from goracs_jax.llm.sizes import Placement
from goracs_jax.llm.work import pass_flops
from goracs_jax.mesh import model_mesh
from goracs_jax.models import DecoderConfig, LoraConfig
from goracs_jax.models.sharding import abstract_decoder

# No two sizes are equal, so that the shapes of a program tell what they are.
SIZES = {
    "vocab_size": 264, "hidden_size": 40, "intermediate_size": 72, "num_layers": 3,
    "num_heads": 8, "num_kv_heads": 8, "head_dim": 16,
}  # fmt: skip
CONFIG, LORA = DecoderConfig.tiny(**SIZES), LoraConfig()
LENGTH, DATA = 48, 8
BATCH = Batch(3 * DATA, LENGTH, DATA, CONFIG.hidden_size)
MEMORY = 1 << 30


def told(report, name, memory=MEMORY, exchanged=None, scored=LENGTH):
    rows, placement = Rows(3, LENGTH, scored), Placement(DATA, dtype="float32", lanes=1)
    exchanged = exchanged or largest_exchange(CONFIG, rows, placement)
    found = {
        "findings": findings(report, memory=memory, exchanged=exchanged, batch=BATCH),
        "arguments": report.arguments,
        "flops": report.flops,
        "exchanges": [list(map(str, e)) for e in report.exchanges],
    }
    try:
        predicted = pass_memory(CONFIG, LORA, name, rows, placement)
        return found | {
            "predicted arguments": predicted.arguments,
            "predicted flops": pass_flops(CONFIG, LORA, name, rows, placement),
        }
    except ValueError:
        return found


def reported(program) -> Report:
    return compile_program(program, program.lower())


def main():
    rows = Rows(3 * DATA, LENGTH, LENGTH)
    found = {}
    model = abstract_decoder(CONFIG, model_mesh(jax.devices()))
    programs = llm_programs(model, rows)
    for name in ("embedding", "last_v_lora_b", "training"):
        report = reported(programs[name]())
        found[name] = told(report, name)
    few = llm_programs(model, rows._replace(scored=2))
    for name in ("answers", "last_v_lora_b", "all_lora"):
        found[f"{name}, few asked"] = told(reported(few[name]()), name, scored=2)
    found["too small a memory"] = told(report, "none", memory=1000)
    found["little may be exchanged"] = told(report, "none", exchanged=100)

    everywhere = NamedSharding(model_mesh(jax.devices()), PartitionSpec())
    apart = NamedSharding(everywhere.mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((24, LENGTH, 40), jnp.float32, sharding=apart)

    @jax.jit
    def copies(x):
        x = jax.lax.with_sharding_constraint(jnp.sin(x), everywhere)
        return jnp.cos(x)

    found["copied batch"] = told(reported(copies.trace(x)), "none")

    @jax.jit
    def calls(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x: x, shape, x, vmap_method="sequential")

    found["callback"] = told(reported(calls.trace(x)), "none")
    with jax.enable_x64(True):
        wide = jax.jit(lambda x: x.astype(jnp.float64) * 2)
        found["wide"] = told(reported(wide.trace(x)), "none")
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    sys.exit(main())
