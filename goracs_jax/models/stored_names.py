"""Names of weights: from paths in our modules to those in checkpoints."""

from goracs_jax.models.config import DecoderConfig, MixtureConfig
from goracs_jax.models.gguf_config import LINEAR

MLP = ("gate_proj", "up_proj", "down_proj")


def _norms(*names: tuple[str, str, str]) -> dict[str, tuple[str, str]]:
    """Name the norms of a layer: in our modules, by Hugging Face, in GGUF files."""
    return {
        f"layers.{ours}.weight": (
            f"model.layers.{{}}.{hf}.weight",
            f"blk.{{}}.{gguf}.weight",
        )
        for ours, hf, gguf in names
    }


# From a path in our module to the names in a Hugging Face file and in a GGUF file. "{}"
# stands for the layer. Both files store kernels as [out, in], our modules as [in, out].
# Entries for parts that a model does not have (biases, some norms) are not used.
LLAMA = (
    {
        "embed": ("model.embed_tokens.weight", "token_embd.weight"),
        "head": ("lm_head.weight", "output.weight"),
        "norm.weight": ("model.norm.weight", "output_norm.weight"),
    }
    | {
        f"layers.{ours}": (f"model.layers.{{}}.{hf}", f"blk.{{}}.{gguf}")
        for block, hf_block, names in [
            ("attention", "self_attn", ("q_proj", "k_proj", "v_proj", "o_proj")),
            ("mlp", "mlp", MLP),
        ]
        for name in names
        for ours, hf, gguf in [
            (
                f"{block}.{name}.kernel",
                f"{hf_block}.{name}.weight",
                f"{LINEAR[name]}.weight",
            ),
            (f"{block}.{name}.bias", f"{hf_block}.{name}.bias", f"{LINEAR[name]}.bias"),
        ]
    }
    | _norms(
        ("attention_norm", "input_layernorm", "attn_norm"),
        ("mlp_norm", "post_attention_layernorm", "ffn_norm"),
        ("attention.q_norm", "self_attn.q_norm", "attn_q_norm"),
        ("attention.k_norm", "self_attn.k_norm", "attn_k_norm"),
    )
)
# In models with post norms, the name of Llama's norm before the MLP belongs to the norm
# after attention.
POST_NORMS = _norms(
    ("attention_post_norm", "post_attention_layernorm", "post_attention_norm"),
    ("mlp_norm", "pre_feedforward_layernorm", "ffn_norm"),
    ("mlp_post_norm", "post_feedforward_layernorm", "post_ffw_norm"),
)
BERT = {
    "words": "embeddings.word_embeddings.weight",
    "positions": "embeddings.position_embeddings.weight",
    "types": "embeddings.token_type_embeddings.weight",
    "norm.weight": "embeddings.LayerNorm.weight",
    "norm.bias": "embeddings.LayerNorm.bias",
} | {
    f"layers.{ours}.{ours_part}": f"encoder.layer.{{}}.{hf}.{hf_part}"
    for ours, hf in [
        ("query", "attention.self.query"),
        ("key", "attention.self.key"),
        ("value", "attention.self.value"),
        ("out", "attention.output.dense"),
        ("attention_norm", "attention.output.LayerNorm"),
        ("up", "intermediate.dense"),
        ("down", "output.dense"),
        ("mlp_norm", "output.LayerNorm"),
    ]
    for ours_part, hf_part in [
        ("weight" if "norm" in ours else "kernel", "weight"),
        ("bias", "bias"),
    ]
}
# The names of MPNet that differ from those of BERT.
MPNET = {"relative_bias": "encoder.relative_attention_bias.weight"} | {
    f"layers.{ours}": f"encoder.layer.{{}}.attention.{hf}"
    for name, letter in [("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")]
    for ours, hf in [
        (f"{name}.kernel", f"attn.{letter}.weight"),
        (f"{name}.bias", f"attn.{letter}.bias"),
        ("attention_norm.weight", "LayerNorm.weight"),
        ("attention_norm.bias", "LayerNorm.bias"),
    ]
}


def stored_names(config: DecoderConfig, *, gguf: bool) -> dict[str, str]:
    """Map paths in a decoder to names in a checkpoint, "{}" for the layer.

    Args:
        config: Sizes of the model.
        gguf: Whether the checkpoint is a GGUF file; otherwise it is from Hugging Face.

    Returns:
        From paths to names.

    >>> stored_names(DecoderConfig.tiny(), gguf=False)["embed"]
    'model.embed_tokens.weight'
    """
    table = LLAMA | (POST_NORMS if config.post_norms else {})
    names = {ours: stored[gguf] for ours, stored in table.items()}
    return names | (_mixture(config.mixture) if config.mixture else {})


def _mixture(c: MixtureConfig) -> dict[str, str]:
    """Name the router, and the experts as `stacked.stack` puts them into one tensor."""
    block = f"model.layers.{{}}.{c.block}"
    names = {"layers.mlp.router.kernel": f"{block}.gate.weight"}
    for ours, part in zip(MLP, c.parts, strict=True):
        names[f"layers.mlp.{ours}.kernel"] = f"{block}.experts.{part}.weight"
    return names
