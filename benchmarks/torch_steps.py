"""LoRA fine-tuning in PyTorch with PEFT, of a model with our weights."""

from typing import Any

import numpy as np
import peft
import torch
from flax import nnx
from lora_steps import step_rows
from transformers import LlamaConfig, LlamaForCausalLM

from goracs_jax.llm.tokens import NOT_SCORED, Tokens, take
from goracs_jax.models import Decoder


class Torch:
    """Steps as Hugging Face's Trainer takes them, with accumulated gradients.

    Args:
        model: The model of transformers and PEFT, from `torch_model`.
        tokens: The training examples.
        batch: Examples of a step.
        micro: Examples that go through the model together.
    """

    def __init__(self, model: Any, tokens: Tokens, batch: int, micro: int):
        self.model = model.train()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, weight_decay=0.0)
        self.tokens, self.batch, self.micro = tokens, batch, micro
        self.device = self.trained[0].device

    def step(self, number: int) -> int:
        """Take one step and return its tokens, without padding."""
        rows = step_rows(self.tokens, self.batch, number)
        whole = take(self.tokens, rows)
        firsts = whole.labels[whole.offsets[:-1]]  # the first of each is not predicted
        count = whole.scored.sum() - (firsts >= 0).sum()
        for micro in rows.reshape(-1, self.micro):
            some = [take(self.tokens, [int(row)]) for row in micro]
            time = max(len(one.ids) for one in some)
            pad = lambda x, value, time=time: torch.tensor(
                np.pad(x, (0, time - len(x)), constant_values=value)
            ).long()
            stack = lambda rows: torch.stack(rows).to(self.device)
            loss = self.model(
                input_ids=stack([pad(one.ids, 0) for one in some]),
                attention_mask=stack(
                    [pad(np.ones(len(one.ids), np.int32), 0) for one in some]
                ),
                labels=stack([pad(one.labels, NOT_SCORED) for one in some]),
                num_items_in_batch=int(count),
            ).loss
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        norm.item()  # waits for the device
        return int(whole.lengths.sum())


def torch_model(model: Decoder) -> Any:
    """Copy weights and adapters into a model of transformers and PEFT, in float32."""
    c = model.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.hidden_size,
            intermediate_size=c.intermediate_size,
            num_hidden_layers=c.num_layers,
            num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            max_position_embeddings=c.max_positions,
            rms_norm_eps=c.norm_eps,
            tie_word_embeddings=c.tie_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope.theta},
        )
    ).eval()
    lora = peft.LoraConfig(
        r=model.lora.r,
        lora_alpha=int(model.lora.alpha),
        lora_dropout=model.lora.dropout,
        target_modules=list(model.lora.targets),
        task_type="CAUSAL_LM",
    )
    theirs = peft.get_peft_model(theirs, lora).eval()
    state = nnx.to_pure_dict(nnx.state(model))
    layers, put = state["layers"], {}
    for i in range(c.num_layers):
        stem = f"base_model.model.model.layers.{i}."
        attention, mlp = layers["attention"], layers["mlp"]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            adapted = name in model.lora.targets
            inner = ".base_layer" if adapted else ""
            ours = attention[name]
            put[f"{stem}self_attn.{name}{inner}.weight"] = ours["kernel"][i].T
            if adapted:
                for a, b in (("lora_A", "lora_a"), ("lora_B", "lora_b")):
                    put[f"{stem}self_attn.{name}.{a}.default.weight"] = ours[b][i].T
        for name in ("gate_proj", "up_proj", "down_proj"):
            put[f"{stem}mlp.{name}.weight"] = mlp[name]["kernel"][i].T
        for ours_name, name in (
            ("attention_norm", "input_layernorm"),
            ("mlp_norm", "post_attention_layernorm"),
        ):
            put[f"{stem}{name}.weight"] = layers[ours_name]["weight"][i]
    put["base_model.model.model.embed_tokens.weight"] = state["embed"]
    put["base_model.model.lm_head.weight"] = model.output_head
    put["base_model.model.model.norm.weight"] = state["norm"]["weight"]
    tensors = {k: torch.from_numpy(np.array(v, np.float32)) for k, v in put.items()}
    theirs.load_state_dict(tensors, strict=True)
    return theirs
