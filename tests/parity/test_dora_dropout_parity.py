"""The gradient of a training step with DoRA and dropout, under the same masks."""

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
from adapters import load, moved
from flax import nnx
from safetensors.torch import load_file

from goracs_jax.llm.batches import Batch
from goracs_jax.models import LoRALinear, save_adapter, with_dropout
from goracs_jax.training import step

pytestmark = pytest.mark.filterwarnings("ignore")

RATE, TIME = 0.3, 17
TARGETS = ["q_proj", "v_proj", "down_proj"]


class Mask(torch.nn.Module):
    """Dropout of inputs that are given."""

    def __init__(self, stay: np.ndarray):
        super().__init__()
        self.factor = torch.tensor(np.asarray(stay, np.float32)) / (1 - RATE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.training
        return x * self.factor


def inject(theirs: peft.PeftModel, ours, key: jax.Array):
    """Give PEFT's layers the masks that ours draw for the first example of a step."""
    model = with_dropout(ours, jax.random.fold_in(key, 0))
    for path, layer in nnx.iter_modules(model):
        if not isinstance(layer, LoRALinear):
            continue
        for i, drawn in enumerate(layer.dropout_key[...]):
            shape = (TIME, layer.lora_a.shape[1])
            stay = jax.random.bernoulli(drawn, 1 - RATE, shape)
            block = theirs.base_model.model.model.layers[i]
            block = block.mlp if path[-1] == "down_proj" else block.self_attn
            getattr(block, str(path[-1])).lora_dropout["default"] = Mask(stay)


@pytest.mark.parametrize("dora", [True, False], ids=["dora", "plain"])
@pytest.mark.parametrize("biased", [True, False], ids=["biases", "no_biases"])
def test_gradient_of_a_step(save_decoder, tmp_path, dora, biased):
    base, folder = save_decoder(attention_bias=biased, mlp_bias=biased)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_alpha=6,
        target_modules=TARGETS,
        lora_dropout=RATE,
        use_dora=dora,
    )
    theirs = moved(peft.get_peft_model(base, config), tmp_path / "adapter")
    ours, key = load(folder, tmp_path / "adapter"), jax.random.key(5)
    assert ours.lora.dropout == RATE
    inject(theirs, ours, key)

    ids = np.random.default_rng(0).integers(0, 96, (1, TIME)).astype(np.int32)
    theirs.train()
    loss = theirs(torch.tensor(ids).long(), labels=torch.tensor(ids).long()).loss
    loss.backward()

    parts = step.split(ours)
    batch = Batch(np.array([0]), ids, ids)
    sums = step.accumulate(parts, step.zero_sums(parts), batch, key, most=TIME)
    count = TIME - 1
    np.testing.assert_allclose(sums.loss / count, loss.item(), rtol=1e-5)
    still = step.loss_sum(parts, batch, most=TIME) / count
    assert abs(float(still) - loss.item()) > 1e-3  # the masks are felt

    # A gradient has the names of what it is of: save it as an adapter.
    mean = jax.tree.map(lambda g: jnp.asarray(g) / count, sums.gradient)
    save_adapter(nnx.merge(parts.graph, mean, parts.frozen), tmp_path / "gradient")
    found = load_file(tmp_path / "gradient" / "adapter_model.safetensors")
    expected = {
        name.replace(".default", "").replace("vector.weight", "vector"): w.grad
        for name, w in theirs.named_parameters()
        if w.requires_grad
    }
    assert found.keys() == expected.keys()
    assert len(found) == 3 * len(TARGETS) * (3 if dora else 2)
    for name, gradient in expected.items():
        size = gradient.abs().max().item()
        difference = (found[name] - gradient).abs().max().item()
        assert difference < 1e-4 * size, name
