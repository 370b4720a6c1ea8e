"""What compilers say of attention kernels, layers on TPUs, and weights a GPU copies.

    python benchmarks/kernels.py

It needs the compilers of TPUs and GPUs (`make ahead` installs them), and neither. It
writes results/kernels.json: attention of one layer on a v5e, with scores in memory and
with the splash kernel; the embedding pass on two TPUs, as it is and without one of the
two things that `SHORTCUTS` names; and the bytes of a layer's weights that the gradient
passes of a Llama of 7B shape copy on an H100, by options of its compiler.
"""

import os
import re
from functools import partial
from typing import Any
from unittest import mock

from goracs_jax.ahead.topology import ENVIRONMENT, compiler_devices, parse

os.environ |= ENVIRONMENT

import jax
import jax.numpy as jnp
from accelerator_given import LLAMA_7B, SMOLLM2
from common import write
from jax.sharding import NamedSharding, PartitionSpec

from goracs_jax.ahead.llm_programs import llm_programs
from goracs_jax.llm.memory import Rows
from goracs_jax.llm.profile import ACCELERATOR_BLOCK
from goracs_jax.mesh import model_mesh
from goracs_jax.models import DecoderConfig
from goracs_jax.models.attention import attend, visible_pairs
from goracs_jax.models.decoder import with_execution
from goracs_jax.models.execution import Execution
from goracs_jax.models.rope import rotate
from goracs_jax.models.sharding import abstract_decoder
from goracs_jax.models.splash import splash

#: Query heads, key heads and their width.
HEADS = {"Llama-7B": (32, 32, 128), "SmolLM2-135M": (9, 3, 64)}
SIZES = [(8, 512), (1, 4096)]  # examples and tokens
EXAMPLES = 64  # of 512 tokens, on each device
TPUS = ("v6e:2x2", "tpu7x:2x2x1")
#: What a layer does on TPUs, and what stands in for it where it is left out.
SHORTCUTS = {
    "halves of heads": ("goracs_jax.models.attention.rotate_in_place", rotate),
    "no barrier": ("jax.lax.optimization_barrier", lambda weights: weights),
}
NO_TRITON = {"xla_gpu_enable_triton_gemm": False}
OPTIONS = {
    "as they are": {},
    "no Triton products": NO_TRITON,
    "no Triton products, slices fused": NO_TRITON
    | {"xla_gpu_enable_dynamic_slice_fusion": True},
}


def main() -> None:
    """Compile all of it and write the figures."""
    attention = [
        {"model": model, "examples": examples, "tokens": tokens, "pass": name}
        | {"scores": of_attention(model, examples, tokens, name, "scores")}
        | {"splash": of_attention(model, examples, tokens, name, "splash")}
        for model in HEADS
        for examples, tokens in SIZES
        for name in ("forward", "gradient")
    ]
    copies = [
        {"pass": name, "options": options} | of_weights(name, OPTIONS[options])
        for name in ("last_v_lora_b", "all_lora")
        for options in OPTIONS
    ]
    layers = [
        {"model": model, "topology": topology} | of_layers(config, topology)
        for model, config in (("SmolLM2-135M", SMOLLM2), ("Llama-7B", LLAMA_7B))
        for topology in TPUS
    ]
    write("kernels", {"attention": attention, "layers": layers, "copies": copies})


def of_attention(
    model: str, examples: int, tokens: int, name: str, kind: str
) -> dict[str, int]:
    """Compile attention in bfloat16 for one v5e: bytes in memory, and bytes moved."""
    heads, kv_heads, dim = HEADS[model]
    mesh = model_mesh(compiler_devices(parse("v5e:1x1")))
    sharding = NamedSharding(mesh, PartitionSpec())
    array = lambda heads: jax.ShapeDtypeStruct(
        (examples, tokens, heads, dim), jnp.bfloat16, sharding=sharding
    )
    visible = visible_pairs(jnp.arange(tokens), jnp.arange(tokens))
    by_kind = {
        "scores": partial(attend, visible=visible),
        "splash": partial(splash, execution=Execution(mesh=mesh)),
    }
    fn = partial(by_kind[kind], scale=dim**-0.5)
    qkv = [array(heads), array(kv_heads), array(kv_heads)]
    gradient = lambda d_mixed, *qkv: jax.vjp(fn, *qkv)[1](d_mixed)
    given = (fn, *qkv) if name == "forward" else (gradient, array(heads), *qkv)
    compiled = jax.jit(given[0]).lower(*given[1:]).compile()
    memory: Any = compiled.memory_analysis()
    costs: Any = compiled.cost_analysis()
    return {
        "temporaries": memory.temp_size_in_bytes,
        "moved": int(costs["bytes accessed"]),
    }


def of_layers(config: DecoderConfig, topology: str) -> dict[str, Any]:
    """Compile an embedding pass in bfloat16: temporaries, also without a shortcut."""
    found = parse(topology)
    mesh = model_mesh(compiler_devices(found))
    model = abstract_decoder(config, mesh, dtype=jnp.bfloat16)
    model = with_execution(model, attention="splash", vocab_block=ACCELERATOR_BLOCK)
    rows = Rows(EXAMPLES * found.devices, 512, 512)

    def temporaries() -> int:
        jax.clear_caches()  # of traces: they would keep the shortcut
        compiled = llm_programs(model, rows)["embedding"]().lower().compile()
        memory: Any = compiled.memory_analysis()
        return memory.temp_size_in_bytes

    figures = {"tokens": EXAMPLES * 512, "as it is": temporaries()}
    for name, (path, plain) in SHORTCUTS.items():
        with mock.patch(path, plain):
            figures[name] = temporaries()
    return figures


def of_weights(name: str, options: Any) -> dict[str, Any]:
    """Compile a pass in bfloat16 for one H100: copies of a layer, and temporaries."""
    mesh = model_mesh(compiler_devices(parse("h100:1")))
    model = abstract_decoder(LLAMA_7B, mesh, dtype=jnp.bfloat16)
    model = with_execution(model, vocab_block=ACCELERATOR_BLOCK)
    program = llm_programs(model, Rows(8, 512, 512))[name]()
    try:
        compiled = program.lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        return {"failed": str(error).splitlines()[0]}
    memory: Any = compiled.memory_analysis()
    return {
        "copied": copied(compiled.as_text() or ""),
        "temporaries": memory.temp_size_in_bytes,
    }


def copied(text: str) -> int:
    """Count the bytes of a layer's matrices that are sliced off in a kernel of its own.

    Slices in a computation with a product would be read where they are.

    >>> line = "  %x = bf16[1,4096,4096]{2,1,0} dynamic-slice(%w, %i, %zero, %zero)"
    >>> copied(line) // 2**20, copied(line + chr(10) + "  %y = f32[] dot(%x, %z)")
    (32, 0)
    """
    dim, mlp = LLAMA_7B.hidden_size, LLAMA_7B.intermediate_size
    total = 0
    for computation in text.split("\n}\n"):
        if re.search(r" (dot|custom-call)\(", computation):
            continue
        slices = re.findall(r"= bf16\[1,(\d+),(\d+)\]\S* dynamic-slice\(", computation)
        total += sum(
            2 * int(rows) * int(columns)
            for rows, columns in slices
            if {int(rows), int(columns)} <= {dim, mlp}
        )
    return total


if __name__ == "__main__":
    main()
