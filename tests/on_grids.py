"""Every pass of a language model on eight devices in several grids; a script."""

import sys
import tracemalloc
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from flax import nnx
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import Mesh

from goracs_jax.evaluate.beam import Ending, generation_pass
from goracs_jax.evaluate.ctr import yes_pass
from goracs_jax.evaluate.likelihood import likelihood_pass
from goracs_jax.gradients.adam import Moments
from goracs_jax.llm.batches import make_batches
from goracs_jax.llm.embeddings import embedding_pass
from goracs_jax.llm.gradients import score_pass
from goracs_jax.llm.losses import loss_pass
from goracs_jax.llm.lower import lower_states
from goracs_jax.llm.passes import Pass, map_batches
from goracs_jax.llm.projections import projection_pass
from goracs_jax.llm.tokens import ragged
from goracs_jax.mesh import DATA, model_mesh, spread_batch
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.models.attention import attend, visible_pairs
from goracs_jax.models.config import MixtureConfig
from goracs_jax.models.decoder import with_execution
from goracs_jax.models.execution import Execution
from goracs_jax.models.sharding import (
    abstract_decoder,
    spread_decoder,
)
from goracs_jax.models.splash import splash
from goracs_jax.models.targets import Rules
from goracs_jax.runs.opened import open_llm
from goracs_jax.settings import Machine
from goracs_jax.training import FinetuneConfig, finetune
from goracs_jax.training.step import accumulate, split, zero_sums

# Odd sizes tell the axes of a program's arrays apart: no two of them are equal.
SIZES = {
    "vocab_size": 264, "hidden_size": 40, "intermediate_size": 72, "num_layers": 3,
    "num_heads": 8, "num_kv_heads": 8, "head_dim": 12,
}  # fmt: skip
EXAMPLES, TIME, NEW, BLOCK = 56, 16, 3, 88
ALL = EXAMPLES * TIME
GRIDS = {"8 x 1": 1, "2 x 4": 4, "1 x 8": 8}
CONFIG = DecoderConfig.tiny(**SIZES)
LORA = LoraConfig(dropout=0.1)
# The mean of the adapters after the last two steps is validated at the end.
TRAINING = FinetuneConfig(
    steps=11,
    keep="average",
    learning_rate=1e-3,
    warmup_steps=1,
    batch_size=40,
    valid_every=1,
    tokens_per_batch=256,
)

_rng = np.random.default_rng(0)
IDS = [_rng.integers(0, 264, n).tolist() for n in _rng.integers(9, TIME + 1, EXAMPLES)]
TOKENS = ragged(IDS, IDS)
# The first seven tokens are the prompt, then two answers of one token or more.
BRANCHES = [[0] * 7 + [1] + [2] * (len(row) - 8) for row in IDS]


def trained(config: DecoderConfig = CONFIG) -> Decoder:
    """A model whose lora_B is not zero, so that every adapter has a gradient."""
    model = Decoder(config, LORA, key=jax.random.key(0))
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    noise = lambda w: w + 0.1 * jax.random.normal(jax.random.key(2), w.shape)
    return nnx.merge(graph, jax.tree.map(noise, lora), frozen)


def passes(model: Decoder) -> dict[str, Pass]:
    """Every pass over examples, by name."""
    ends = Ending(np.eye(264, dtype=np.int32)[3], np.array(1, np.int32))
    key, lora = jax.random.key(1), nnx.state(model, nnx.LoRAParam)
    rng, params = np.random.default_rng(3), sum(x.size for x in jax.tree.leaves(lora))
    changes = {
        "moments": Moments(*rng.uniform(1e-3, 2e-3, (2, params)).astype(np.float32), 9),
        "directions": np.linalg.qr(rng.normal(size=(7, 3)))[0].astype(np.float32),
    }
    projecting = partial(projection_pass, model, "all_lora", most=TIME, dim=7, key=key)
    return {
        "embedding": embedding_pass(model),
        "last_v_lora_b": score_pass(model, "last_v_lora_b", most=TIME),
        "all_lora": score_pass(model, "all_lora", most=TIME),
        "projection": projecting(),
        "subspace": projecting(**changes),
        "two losses": loss_pass([model, model], most=TIME),
        "yes": yes_pass(model, 3, 5),
        "likelihood": likelihood_pass(model, answers=2),
        "generation": generation_pass(model, ends, beams=2, new=NEW),
    }


def labels_of(name: str):
    """The examples, with the labels that a pass takes."""
    return ragged(IDS, BRANCHES) if name == "likelihood" else TOKENS


def arrays(model: Decoder) -> dict[str, np.ndarray]:
    """What the passes find, and how a training goes."""
    found = {}
    for name, run in passes(model).items():
        batches = run.batches(labels_of(name), ALL // run.execution.data_devices)
        leaves = jax.tree.leaves(map_batches(run, batches))
        found |= {f"{name} {i}": leaf for i, leaf in enumerate(leaves)}
    done = finetune(model, TOKENS, TOKENS, TRAINING, seed=0)
    found["losses"] = losses(done.log)
    found["losses of the last layer"] = last_layer(model.execution.grid)
    for i, leaf in enumerate(
        jax.tree.leaves(accumulate(*micro_batch(model), most=TIME))
    ):
        found[f"sums {i}"] = np.asarray(leaf)
    found["attention"] = attention(model.execution)
    found["mixture"] = mixture(model.execution)
    return found


def losses(log: list) -> np.ndarray:
    """The losses of steps and validations."""
    return np.array([e.get("loss", e.get("valid_loss")) for e in log], np.float64)


def last_layer(grid: Mesh | None) -> np.ndarray:
    """The losses of the last layer's training, from states that were kept."""
    rules = Rules(targets=LORA.targets, layers=(2,))
    model = Decoder(CONFIG, LoraConfig(dropout=0.1, rules=rules), key=jax.random.key(0))
    model = model if grid is None else spread_decoder(model, grid)
    lower = lower_states(model, TOKENS)
    return losses(finetune(model, TOKENS, TOKENS, TRAINING, seed=0, lower=lower).log)


def attention(execution: Execution) -> np.ndarray:
    """The gradient of attention: by a kernel on a grid, by its scores elsewhere."""
    qkv = jax.random.normal(jax.random.key(3), (3, 8, 130, 8, 16))
    if execution.mesh is None:
        visible = visible_pairs(jnp.arange(130), jnp.arange(130))
        run = partial(attend, visible=visible, scale=0.3)
    else:
        run = partial(splash, scale=0.3, execution=execution)
    total = lambda qkv: jnp.sum(run(*qkv) ** 2)
    gradient = jax.vmap(jax.grad(total), in_axes=1, spmd_axis_name=DATA)
    return np.asarray(jax.jit(gradient)(qkv))


def mixture(execution: Execution) -> np.ndarray:
    """Gradient norms of a mixture of experts; each device routes its own examples."""
    experts = MixtureConfig(experts=5, active=2)
    model = trained(DecoderConfig.tiny(**SIZES, mixture=experts))
    grid = execution.grid
    model = model if grid is None else spread_decoder(model, grid)
    run = score_pass(
        with_execution(model, remat=execution.remat), "all_lora", most=TIME
    )
    return map_batches(run, run.batches(TOKENS, ALL // execution.data_devices))


def micro_batch(model: Decoder) -> tuple:
    """What `accumulate` takes for all examples."""
    parts, devices = split(model), model.execution.data_devices
    (planned,) = make_batches(
        TOKENS, tokens_per_batch=EXAMPLES * TIME // devices, devices=devices
    )
    batch = planned.padded()._replace(rows=planned.rows.astype(np.int32))
    batch = spread_batch(batch, model.execution.grid)
    return parts, zero_sums(parts), batch, jax.random.key(0)


def texts(model: Decoder) -> dict[str, str]:
    """The compiled program of every pass, and of a micro-batch of training."""
    found = {}
    for name, run in passes(model).items():
        (batch,) = run.batches(labels_of(name), ALL // run.execution.data_devices)
        rows = spread_batch(batch.arrays(), run.mesh)
        found[name] = run.fn.lower(*run.given, *rows).compile().as_text()
    program = accumulate.lower(*micro_batch(model), most=TIME).compile()
    found["training"] = program.as_text()
    return found


def ahead() -> dict[str, np.ndarray]:
    """A gradient pass that is compiled for four devices before there is a model."""
    grid = model_mesh(jax.devices()[4:], 2)
    run = score_pass(abstract_decoder(CONFIG, grid, lora=LORA), "all_lora", most=TIME)
    (batch,) = run.batches(TOKENS, ALL // run.execution.data_devices)
    rows = spread_batch(batch.arrays(), grid)
    compiled = run.fn.lower(*run.given, *rows).compile()
    plain = trained()
    dynamic = lambda run: run.given[2:]
    there = score_pass(spread_decoder(plain, grid), "all_lora", most=TIME)
    return {
        "ahead": compiled(*dynamic(there), *rows),
        "now": score_pass(plain, "all_lora", most=TIME)(*batch.arrays()),
        "ahead text": np.array(compiled.as_text()),
    }


def loading(folder: Path) -> dict[str, np.ndarray]:
    """A model from a folder: in parts on eight devices, and whole on one.

    And the bytes of the largest part, and the most that the host held beside what it
    kept (a CPU device may use the host's arrays) while the parts were read.
    """
    raw = tiny.LLAMA | {"hidden_size": 256, "intermediate_size": 1024}
    tiny.write_llm(folder / "llm", raw)
    mesh, load = model_mesh(jax.devices(), 2), partial(open_llm, folder / "llm")
    tracemalloc.start()
    parts = load(None, 0, Machine(model_devices=2)).decoder()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    whole = load(None, 0, devices=jax.devices()[:1]).decoder()
    leaves = jax.tree.leaves(nnx.state(whole))
    again = jax.tree.leaves(nnx.state(parts))
    assert all(leaf.sharding.mesh == mesh for leaf in again)
    pairs = zip(leaves, again, strict=True)
    return {
        "same": np.array([np.array_equal(a, b) for a, b in pairs]),
        "largest leaf": np.array(max(x.nbytes for x in leaves)),
        "largest part": np.array(
            max(x.addressable_shards[0].data.nbytes for x in again)
        ),
        "beside": np.array(peak - kept),
    }


def main(out: str) -> None:
    """Write all arrays and programs to one file."""
    # A CPU interprets the kernel.
    make = partial(splash_attention.make_splash_mha, interpret=True)
    splash_attention.make_splash_mha = make
    found = loading(Path(out).parent)
    plain = with_execution(trained(), vocab_block=BLOCK)
    found |= {f"one {name}": value for name, value in arrays(plain).items()}
    layers = with_execution(plain, remat="layers")
    found |= {f"layers {name}": value for name, value in arrays(layers).items()}
    for grid, over in GRIDS.items():
        mesh = model_mesh(jax.devices(), over)
        model = spread_decoder(plain, mesh)
        assert model.execution.grid == mesh
        found |= {f"{grid} {name}": value for name, value in arrays(model).items()}
        found |= {
            f"{grid} {name} text": np.array(t) for name, t in texts(model).items()
        }
    np.savez(out, **found, **ahead())


if __name__ == "__main__":
    main(sys.argv[1])
