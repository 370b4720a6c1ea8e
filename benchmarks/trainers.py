"""Any loss: tunix's own, with qwix LoRA, against its value_and_grad; then a training.

Run by `make tunix`, which has an environment of its own. Models are tiny and random, in
float32 and bfloat16 on a CPU: this says that numbers are right, not how long they take.
Writes results/trainers.json.
"""

import logging
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import qwix
from common import write
from flax import nnx
from tunix.models.llama3 import model as llama3
from tunix.models.qwen3 import model as qwen3
from tunix.sft import peft_trainer, utils

import goracs_jax as gx

SIZES = {
    "num_layers": 2, "vocab_size": 96, "embed_dim": 32, "hidden_dim": 48,
    "num_heads": 4, "head_dim": 8, "num_kv_heads": 2, "rope_theta": 10_000,
    "norm_eps": 1e-6,
}  # fmt: skip
LORA = ".*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
#: The matrix of the paper: lora_B of v_proj in the last layer.
LAST_V = nnx.All(
    nnx.LoRAParam,
    nnx.PathContains("v_proj"),
    nnx.PathContains(SIZES["num_layers"] - 1),
    nnx.PathContains("w_lora_b"),
)
POOL, VALID, LENGTHS, BUDGET, STEPS = 40, 12, (16, 24), 8, 6
TOLERANCE = {"float32": 1e-5, "bfloat16": 2**-7}  # of 8 bits, the last

Row = peft_trainer.TrainingInput


class Case(NamedTuple):
    """A model of tunix, as a factory: a trainer changes the one that it has."""

    make: Callable[[], nnx.Module]
    dtype: str


def qwen(dtype: Any) -> nnx.Module:
    """Return a Qwen3 whose layers are computed again backwards."""
    remat = qwen3.RematConfig.BLOCK
    config = qwen3.ModelConfig(
        **SIZES, dtype=dtype, param_dtype=dtype, remat_config=remat
    )
    return qwen3.Qwen3(config, rngs=nnx.Rngs(0))


def llama() -> nnx.Module:
    """Return a Llama 3, whose final norm tells what it gives."""
    return llama3.Llama3(llama3.ModelConfig(**SIZES), rngs=nnx.Rngs(0))


CASES = {
    "Qwen3 float32": Case(lambda: qwen(jnp.float32), "float32"),
    "Qwen3 bfloat16": Case(lambda: qwen(jnp.bfloat16), "bfloat16"),
    "Llama 3 float32": Case(llama, "float32"),
}


def with_lora(model: nnx.Module) -> nnx.Module:
    """Add qwix adapters; B is not zero, so that A has a gradient, too."""
    provider = qwix.LoraProvider(module_path=LORA, rank=4, alpha=8)
    given = model.get_model_input()
    model = qwix.apply_lora_to_model(model, provider, rngs=nnx.Rngs(1), **given)
    graph, lora, rest = nnx.split(model, nnx.LoRAParam, ...)
    keys = iter(jax.random.split(jax.random.key(5), 1000))
    noise = lambda w: (w + 0.1 * jax.random.normal(next(keys), w.shape)).astype(w.dtype)
    return nnx.merge(graph, jax.tree.map(noise, lora), rest)


def texts(count: int, seed: int) -> list[Row]:
    """Make random texts of two padded lengths; the first tokens are a prompt."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        length = int(rng.integers(8, LENGTHS[-1] + 1))
        padded = next(size for size in LENGTHS if size >= length)
        tokens, mask = np.zeros(padded, np.int32), np.zeros(padded, bool)
        tokens[:length] = rng.integers(1, SIZES["vocab_size"], length)
        mask[4:length] = True
        rows.append(Row(input_tokens=tokens, input_mask=mask))
    return rows


def model_input(batch: Row) -> dict[str, jax.Array]:
    """Return what the trainer's loss takes of a batch."""
    padding = batch.input_tokens != 0
    return {
        "input_tokens": batch.input_tokens,
        "input_mask": batch.input_mask,
        "positions": utils.build_positions_from_mask(padding),
        "attention_mask": utils.make_causal_attn_mask(padding),
    }


def trainer_of(model: nnx.Module) -> peft_trainer.PeftTrainer:
    """Return a trainer of the adapters."""
    config = peft_trainer.TrainingConfig(eval_every_n_steps=1000, max_steps=STEPS)
    trainer = peft_trainer.PeftTrainer(model, optax.adam(1e-2), config)
    return trainer.with_gen_model_input_fn(model_input)


def one_at_a_time(trainer: peft_trainer.PeftTrainer, rows: list[Row], wrt: Any):
    """Take norms and losses by nnx.value_and_grad of batches of one, as a trainer."""
    of_model = nnx.value_and_grad(trainer.loss_fn, argnums=nnx.DiffState(0, wrt))
    step = nnx.jit(of_model)
    norms, losses = [], []
    for row in rows:
        batch = jax.tree.map(lambda x: jnp.asarray(x)[None], row)
        loss, gradient = step(trainer.model, **trainer.gen_model_input_fn(batch))
        leaves = [np.asarray(g, np.float64) for g in jax.tree.leaves(gradient)]
        norms.append(np.sqrt(sum((leaf**2).sum() for leaf in leaves)))
        losses.append(float(loss))
    return np.array(norms), np.array(losses)


def compared(case: Case, rows: list[Row]) -> dict[str, Any]:
    """Compare norms and losses of all adapters and of the paper's matrix."""
    trainer = trainer_of(with_lora(case.make()))
    found: dict[str, Any] = {"tolerance": TOLERANCE[case.dtype]}
    for name, wrt in {"all adapters": nnx.LoRAParam, "last v_proj B": LAST_V}.items():
        given = (trainer.model, trainer.loss_fn, trainer.gen_model_input_fn)
        loss, params, frozen = gx.nnx_loss(*given, wrt=wrt)
        ours = gx.example_gradients(loss, params, frozen, rows)
        norms, losses = one_at_a_time(trainer, rows, wrt)
        found[name] = {
            "arrays": len(jax.tree.leaves(params)),
            "norm, relative": worst(ours.norms, norms),
            "loss, relative": worst(ours.losses, losses),
        }
    return found


def worst(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest relative difference."""
    return float(np.max(np.abs(found / expected - 1)))


class Sowing(nnx.Module):
    """A norm that stores what it gives: Llama 3 does not return its hidden states."""

    def __init__(self, norm: nnx.Module):
        self.norm = norm

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return and store the norm of x."""
        hidden = self.norm(x)
        self.sow(nnx.Intermediate, "hidden", hidden)
        return hidden


def mean_hidden(model: nnx.Module) -> Callable[[Row], jax.Array]:
    """Return the mean hidden state of an example; the whole model runs, with qwix."""
    is_qwen = isinstance(model, qwen3.Qwen3)
    if not is_qwen:
        model.final_norm = Sowing(model.final_norm)
    graph, state = nnx.split(model)

    def embed(row: Row) -> jax.Array:
        whole = nnx.merge(graph, jax.tree.map(lambda leaf: leaf, state))
        batch = model_input(jax.tree.map(lambda x: x[None], row))
        del batch["input_mask"]
        if is_qwen:
            whole(**batch, cache=None, output_hidden_states=True)
            (hidden,) = whole.all_hidden_states.get_value()
        else:
            whole(**batch, cache=None)
            (hidden,) = whole.final_norm.hidden.get_value()
        real = (row.input_tokens != 0)[:, None]
        states = jnp.where(real, hidden[0].astype(jnp.float32), 0)
        return states.sum(0) / real.sum()

    return embed


def trained(case: Case, pool: list[Row], valid: list[Row]) -> dict[str, Any]:
    """Choose a coreset by GORACS and train tunix's PeftTrainer on it."""
    trainer = trainer_of(with_lora(case.make()))
    given = (trainer.model, trainer.loss_fn, trainer.gen_model_input_fn)
    loss, params, frozen = gx.nnx_loss(*given, wrt=LAST_V)
    scores = gx.example_gradients(loss, params, frozen, pool)
    embed = mean_hidden(with_lora(case.make()))
    x, y = (gx.example_embeddings(embed, rows) for rows in (pool, valid))
    chosen = gx.goracs(
        x, y, scores.norms, budget=BUDGET, lambda_=0.3, key=jax.random.key(0)
    )
    before = scores.losses[np.sort(chosen.indices)].mean()

    # One padded length: a batch is an array.
    rows = [jax.tree.map(longest, row) for row in pool]
    source = gx.Subset(rows, np.sort(chosen.indices), batch_size=4)
    data = grain.MapDataset.source(source).seed(0).shuffle().repeat()
    trainer.train(data.batch(4, drop_remainder=True).to_iter_dataset())
    steps = trainer.train_steps

    loss, params, frozen = gx.nnx_loss(*given, wrt=nnx.LoRAParam)
    after = gx.example_gradients(loss, params, frozen, list(source)).losses.mean()
    return {
        "rows chosen": np.sort(chosen.indices).tolist(),
        "steps": int(steps),
        "loss of the coreset before": float(before),
        "loss of the coreset after": float(after),
    }


def longest(x: np.ndarray) -> np.ndarray:
    """Pad on the right to the longest length."""
    return np.pad(x, (0, LENGTHS[-1] - len(x)))


def main() -> None:
    """Compare, train, check both and write the figures."""
    logging.disable(logging.WARNING)
    os.environ.setdefault("TQDM_DISABLE", "1")
    pool, valid = texts(POOL, 0), texts(VALID, 1)
    figures: dict[str, Any] = {
        "trainers": {n: version(n) for n in ("google-tunix", "qwix", "grain")},
        "also": {n: version(n) for n in ("transformers", "safetensors")},
        "examples": POOL,
    }
    for name, case in CASES.items():
        figures[name] = compared(case, pool)
        for part in ("all adapters", "last v_proj B"):
            for what in ("norm, relative", "loss, relative"):
                error = figures[name][part][what]
                assert error <= TOLERANCE[case.dtype], (name, part, what, error)
    for name in ("Qwen3 float32", "Llama 3 float32"):
        done = figures[name]["training"] = trained(CASES[name], pool, valid)
        assert done["steps"] == STEPS, done
        assert done["loss of the coreset after"] < done["loss of the coreset before"]
    print(write("trainers", figures))


if __name__ == "__main__":
    main()
