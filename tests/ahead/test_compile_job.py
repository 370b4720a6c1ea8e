import json

import jax
import jax.numpy as jnp
import pytest

from goracs_jax.ahead.compile_job import Job, compile_here
from goracs_jax.ahead.llm_programs import llm_programs
from goracs_jax.ahead.topology import here
from goracs_jax.ahead.traced import count_flops, count_kernel_flops
from goracs_jax.llm.memory import Rows
from goracs_jax.llm.sizes import Placement
from goracs_jax.llm.work import pass_flops
from goracs_jax.mesh import model_mesh
from goracs_jax.models import DecoderConfig, LoraConfig
from goracs_jax.models.decoder import with_execution
from goracs_jax.models.execution import Execution
from goracs_jax.models.sharding import abstract_decoder
from goracs_jax.models.splash import splash

SIZES = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 64, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 1e4, "tie_word_embeddings": True, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture
def job(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SIZES))

    def of(length, known=()):
        return Job(
            topology="here",
            model=str(tmp_path),
            length=length,
            scored=length,
            train_rows=64,
            valid_rows=16,
            budget=4,
            dtype="float32",
            examples={"embedding": 128 // length},
            only="^embedding$",
            known=dict(known),
        )

    return of


def test_a_known_program_is_not_compiled_again(job):
    (first,) = compile_here(job(16), here())
    known = {"embedding": first["fingerprint"]}
    (again,) = compile_here(job(16, known), here())
    assert "temporaries" in first
    assert "temporaries" not in again
    assert again["rows"] == first["rows"]
    (longer,) = compile_here(job(32, known), here())
    assert "temporaries" in longer


def test_flops_in_kernels_are_counted_apart():
    x = jax.ShapeDtypeStruct((2, 512, 4, 64), jnp.bfloat16)
    product = 2 * 512 * 512 * 64 * 4 * 2  # scores of 4 heads in 2 examples

    def attend(q, k, v):
        mixed = splash(q, k, v, scale=1.0, execution=Execution())
        return mixed.astype(jnp.float32).sum()

    program = jax.make_jaxpr(attend)(x, x, x)
    assert count_flops(program) == 0
    assert count_kernel_flops(program) == 2 * product
    # Backward: seven products, of which two kernels share what they need.
    program = jax.make_jaxpr(jax.grad(attend, argnums=(0, 1, 2)))(x, x, x)
    assert count_kernel_flops(program) == 9 * product


@pytest.mark.parametrize("remat", ["products", "layers"])
@pytest.mark.parametrize("name", ["all_lora", "training", "embedding", "validation"])
def test_the_formula_of_flops_is_that_of_the_program(name, remat):
    # A vocabulary of whole blocks: else the last one is padded.
    config = DecoderConfig.tiny(vocab_size=1024, num_layers=3)
    model = abstract_decoder(config, model_mesh(jax.devices()[:1]))
    rows = Rows(2, 64, 64)
    program = llm_programs(with_execution(model, remat=remat), rows)[name]()
    said = pass_flops(config, LoraConfig(), name, rows, Placement(remat=remat))
    assert said == pytest.approx(count_flops(program.jaxpr), rel=1e-12)


def test_flops_on_all_devices_are_counted():
    kinds = (jax.sharding.AxisType.Auto,) * 2  # newer JAX makes them Explicit
    mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"), axis_types=kinds)
    rows = jax.sharding.PartitionSpec("data")
    own = jax.shard_map(
        lambda x: x @ x.T, mesh=mesh, in_specs=rows, out_specs=rows, axis_names={"data"}
    )
    program = jax.jit(own).trace(jax.ShapeDtypeStruct((8, 16), jnp.float32)).jaxpr
    assert count_flops(program) == 4 * (2 * 2 * 2 * 16)
