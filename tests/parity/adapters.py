"""Adapters of PEFT as oracles: made at random, saved, and compared with ours."""

from pathlib import Path

import jax
import numpy as np
import peft
import torch
from flax import nnx
from transformers import PreTrainedModel

from goracs_jax.llm.gradients import gradient_norms
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, load_adapter, load_decoder, read_lora_config

run = nnx.jit(lambda model, ids: model(ids))


def moved(model: peft.PeftModel, folder: Path, size: float = 0.1) -> peft.PeftModel:
    """Move all that a PEFT model trains at random, and save it."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += size * torch.randn_like(weight)
    model.save_pretrained(folder, save_embedding_layers=False)
    return model


def adapted(
    base: PreTrainedModel, folder: Path, size: float = 0.1, **changes
) -> peft.PeftModel:
    """A PEFT model whose trained parameters were moved, and the folder it writes."""
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]}
    config = peft.LoraConfig(task_type="CAUSAL_LM", **(settings | changes))
    return moved(peft.get_peft_model(base, config).eval(), folder, size)


def load(base: Path, adapter: Path) -> Decoder:
    """Our model with an adapter."""
    lora = read_lora_config(adapter)
    model = load_decoder(base, lora=lora, key=jax.random.key(0))
    return load_adapter(model, adapter)


def logits_of(model: torch.nn.Module, ids: np.ndarray) -> np.ndarray:
    """The logits of a torch model."""
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.numpy()


def torch_norms(model: torch.nn.Module, rows: list[list[int]]) -> list[float]:
    """Norms over all that PEFT trains, one example at a time."""
    chosen = [w for w in model.parameters() if w.requires_grad]
    norms = []
    for row in rows:
        ids = torch.tensor(row)[None]
        loss = model(ids, labels=ids).loss
        gradients = torch.autograd.grad(loss, chosen, allow_unused=True)
        squares = [(g**2).sum() for g in gradients if g is not None]
        norms.append(torch.sqrt(sum(squares)).item())
    return norms


def same_norms(
    ours: Decoder, theirs: torch.nn.Module, lengths: tuple[int, ...], rtol: float
):
    """Compare the gradient norms of random examples."""
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, ours.config.vocab_size, n).tolist() for n in lengths]
    found = gradient_norms(
        ours, ragged(rows, rows), which="all_lora", tokens_per_batch=sum(lengths)
    )
    np.testing.assert_allclose(found, torch_norms(theirs, rows), rtol=rtol)


def same_logits(ours: Decoder, expected: np.ndarray, ids: np.ndarray):
    """Compare logits of size ten after float32 through three layers."""
    np.testing.assert_allclose(run(ours, ids), expected, rtol=1e-4, atol=1e-4)
