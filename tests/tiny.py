"""A tiny random LLM and sentence encoder on disk, tokenizers included."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}

ADAPTER = {
    "peft_type": "LORA",
    "r": 3,
    "lora_alpha": 6,
    "target_modules": ["v_proj", "q_proj"],
    "bias": "none",
    "use_dora": False,
    "rank_pattern": {},
}


def adapter_tensors(num_layers: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    """A random adapter of rank 3 for q_proj and v_proj under PEFT's names."""
    rng = np.random.default_rng(0)
    out = {}
    for layer in range(num_layers):
        for name, d_out in (("q_proj", 32), ("v_proj", 16)):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            a, b = rng.normal(size=(3, 32)), scale * rng.normal(size=(d_out, 3))
            out[f"{stem}.lora_A.weight"] = a.astype(np.float32)
            out[f"{stem}.lora_B.weight"] = b.astype(np.float32)
    return out


def write_adapter(folder: Path, scale: float = 1.0) -> Path:
    """A PEFT folder for the model of `write_llm`."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    tensors = adapter_tensors(LLAMA["num_hidden_layers"], scale)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def random_llama(raw: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of the model of a config.json, names and layout Hugging Face's."""
    rng = np.random.default_rng(seed)
    dim, mlp = raw["hidden_size"], raw["intermediate_size"]
    family = raw["model_type"]
    head_dim = raw.get("head_dim", dim // raw["num_attention_heads"])
    queries = head_dim * raw["num_attention_heads"]
    keys = head_dim * raw["num_key_value_heads"]
    linear = {
        "self_attn.q_proj": (queries, dim),
        "self_attn.k_proj": (keys, dim),
        "self_attn.v_proj": (keys, dim),
        "self_attn.o_proj": (dim, queries),
        "mlp.gate_proj": (mlp, dim),
        "mlp.up_proj": (mlp, dim),
        "mlp.down_proj": (dim, mlp),
    }
    norms = {"input_layernorm": (dim,), "post_attention_layernorm": (dim,)}
    if family in ("gemma2", "gemma3_text"):
        norms["pre_feedforward_layernorm"] = (dim,)
        norms["post_feedforward_layernorm"] = (dim,)
    if family in ("qwen3", "gemma3_text"):
        norms["self_attn.q_norm"] = norms["self_attn.k_norm"] = (head_dim,)
    biased = []
    if raw.get("attention_bias"):
        biased += ["q_proj", "k_proj", "v_proj", "o_proj"]
    if raw.get("mlp_bias"):
        biased += ["gate_proj", "up_proj", "down_proj"]
    if family == "qwen2":
        biased += ["q_proj", "k_proj", "v_proj"]
    shapes = {
        "model.embed_tokens.weight": (raw["vocab_size"], dim),
        "model.norm.weight": (dim,),
    }
    if not raw["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (raw["vocab_size"], dim)
    for i in range(raw["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, shape in (linear | norms).items():
            shapes[f"{layer}.{name}.weight"] = shape
            if name.split(".")[-1] in biased:
                shapes[f"{layer}.{name}.bias"] = shape[:1]
    return {
        name: (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in shapes.items()
    }


# What the tokenizer has in one piece.
WORDS = "### Instruction:\n### Input:\n### Response:\nYes No Yes No\nYes\nNo"


def train_bpe(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Train a byte-level BPE of 300 tokens, <eos> the first of them."""
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)


def write_llm(
    folder: Path,
    raw: dict = LLAMA,
    tensors: dict | None = None,
    words: str = WORDS,
) -> Path:
    """A Hugging Face folder: config, weights and a byte-level tokenizer."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(tensors or random_llama(raw), folder / "model.safetensors")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    train_bpe(tokenizer, [words])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    fast.save_pretrained(folder)
    return folder


BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def random_bert() -> dict[str, np.ndarray]:
    """Random weights of the model of `BERT`, names and layout Hugging Face's."""
    rng = np.random.default_rng(0)
    dim, mlp = BERT["hidden_size"], BERT["intermediate_size"]
    layer = "encoder.layer.0."
    sizes = {
        "embeddings.word_embeddings": (BERT["vocab_size"], dim),
        "embeddings.position_embeddings": (BERT["max_position_embeddings"], dim),
        "embeddings.token_type_embeddings": (BERT["type_vocab_size"], dim),
        **{f"{layer}attention.self.{n}": (dim, dim) for n in ("query", "key", "value")},
        f"{layer}attention.output.dense": (dim, dim),
        f"{layer}intermediate.dense": (mlp, dim),
        f"{layer}output.dense": (dim, mlp),
    }
    norms = ["embeddings.", f"{layer}attention.output.", f"{layer}output."]
    shapes = {f"{name}.weight": size for name, size in sizes.items()}
    shapes |= {
        f"{n}.bias": size[:1] for n, size in sizes.items() if n.startswith(layer)
    }
    shapes |= {f"{n}LayerNorm.{p}": (dim,) for n in norms for p in ("weight", "bias")}
    return {n: rng.normal(size=size).astype(np.float32) for n, size in shapes.items()}


def write_encoder(folder: Path) -> Path:
    """A folder of a sentence encoder, with the tokenizer of `write_llm`."""
    return write_llm(folder, BERT, random_bert())


def write_pool(path: Path, size: int, seed: int) -> Path:
    """JSONL records with random words and an extra key."""
    rng = np.random.default_rng(seed)
    words = ["ash", "birch", "elm", "fir", "hazel", "larch", "oak", "pine", "yew"]
    with path.open("w") as file:
        for i in range(size):
            record = {
                "instruction": "Name the next tree.",
                "input": " ".join(rng.choice(words, rng.integers(2, 9))) + f" {i}",
                "output": str(rng.choice(words)),
                "id": f"{path.stem}-{i}",
            }
            file.write(json.dumps(record) + "\n")
    return path
