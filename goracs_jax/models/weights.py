"""Load published weights, tensor by tensor; none may be missing or left over."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from goracs_jax.errors import InputError
from goracs_jax.mesh import replicate
from goracs_jax.models.checkpoint import open_safetensors
from goracs_jax.models.config import DecoderConfig, EncoderConfig
from goracs_jax.models.decoder import Decoder
from goracs_jax.models.encoder import Encoder
from goracs_jax.models.folder import existing_model, read_json
from goracs_jax.models.fused import split
from goracs_jax.models.gguf_config import read_gguf_config
from goracs_jax.models.gguf_file import open_gguf, unpermute
from goracs_jax.models.hf_config import read_decoder_config
from goracs_jax.models.hf_encoder import read_encoder_config
from goracs_jax.models.hf_multimodal import text_tensors
from goracs_jax.models.lora import ADAPTERS, DEFAULT_LORA, LoraConfig
from goracs_jax.models.quantised import dequantised, quantisation
from goracs_jax.models.sentence import sentence_options
from goracs_jax.models.sharding import abstract_decoder
from goracs_jax.models.stacked import stack
from goracs_jax.models.stored_names import BERT, MPNET, stored_names
from goracs_jax.models.tensors import (
    Slices,
    Tensors,
    fill,
    finite_floats,
    renamed,
)
from goracs_jax.models.variants import start


def decoder_config(path: str | Path) -> DecoderConfig:
    """Read the sizes of a language model; a folder needs its config.json alone.

    Args:
        path: A Hugging Face folder or a .gguf file.

    Raises:
        InputError: The file is missing, damaged or of an unknown kind.
    """
    path = existing_model(path)
    if path.suffix == ".gguf":
        return _open_gguf_decoder(path)[0]
    return read_decoder_config(*read_json(path / "config.json"))


def load_decoder(
    path: str | Path,
    *,
    lora: LoraConfig = DEFAULT_LORA,
    key: jax.Array,
    dtype: Any = jnp.float32,
    mesh: Mesh | None = None,
) -> Decoder:
    """Load a Llama-family model and add fresh adapters.

    Args:
        path: A Hugging Face folder (config.json and safetensors, one file or several)
            or a .gguf file. Weights that llama.cpp or bitsandbytes quantised, or that
            are floats of 8 bits with scales, are multiplied out as they are read.
        lora: Configuration of the adapters, whose weights are those of
            `Decoder(config, lora, key=key)`.
        key: Random key of the adapters.
        dtype: Type of the frozen weights.
        mesh: The grid of devices to spread the model over, made by `model_mesh`; None
            loads it to one device.

    Returns:
        The model.

    Raises:
        InputError: Files are missing, pickled, damaged or of an unknown kind, or a
            tensor is missing, unexpected, of the wrong shape or not of finite floats.
    """
    path = existing_model(path)
    if path.suffix == ".gguf":
        config, tensors = _open_gguf_decoder(path)
    else:
        raw, where = read_json(path / "config.json")
        config = read_decoder_config(raw, where)
        tensors = open_safetensors(path, float8=True)
        tensors = dequantised(tensors, quantisation(raw, where))
        if raw.get("text_config") is not None:
            tensors = text_tensors(tensors)
        tensors = _with_prefix(tensors)
        if config.fused:
            tensors = split(tensors, config)
        if config.mixture is not None:
            tensors = stack(tensors, config.mixture)
    names = stored_names(config, gguf=path.suffix == ".gguf")
    if config.tie_embeddings:
        tensors = _without_tied_head(tensors, names.pop("head"), names["embed"])
    abstract = abstract_decoder(config, mesh, lora=lora, dtype=dtype)
    graph, _, skeleton = nnx.split(abstract, ADAPTERS, ...)
    ignore = lambda name: name.endswith("rotary_emb.inv_freq")
    weights = fill(skeleton, names, tensors, ignore=ignore)
    # The compiler drops all random numbers except those of the adapters.
    build = lambda key: Decoder(config, lora, key=key, dtype=dtype)
    adapters = jax.jit(lambda key: nnx.state(build(key), ADAPTERS))(key)
    if mesh is not None:
        adapters = jax.tree.map(lambda x: replicate(np.asarray(x), mesh), adapters)
    model = nnx.merge(graph, adapters, weights)
    if not model.lora.is_plain:
        start(model)
    return model


def encoder_config(path: str | Path) -> EncoderConfig:
    """Read the sizes of a sentence encoder, without its weights.

    Args:
        path: As for `load_encoder`.

    Raises:
        InputError: A file is missing, damaged or of an unknown kind.
    """
    path = existing_model(path)
    raw, where = read_json(path / "config.json")
    return read_encoder_config(raw, where, **sentence_options(path))


def load_encoder(path: str | Path) -> Encoder:
    """Load a BERT, RoBERTa or MPNet encoder in float32.

    Args:
        path: A Hugging Face or sentence-transformers folder. Without modules.json, the
            vector of a text is the mean over its tokens, not normalised.

    Returns:
        The model.

    Raises:
        InputError: Files are missing, pickled, damaged or of an unknown kind; a tensor
            is missing, unexpected, of the wrong shape or not of finite floats; or
            modules.json names a module that is not supported.
    """
    config, path = encoder_config(path), existing_model(path)
    tensors = open_safetensors(path)
    tensors = renamed(tensors, _bert_name)
    build = lambda key: Encoder(config, key=key)
    graph, skeleton = nnx.split(nnx.eval_shape(build, jax.random.key(0)))
    unused = ("pooler.", "cls.", "lm_head.", "embeddings.position_ids")
    ignore = lambda name: name.startswith(unused)
    names = BERT | (MPNET if config.relative_buckets else {})
    return nnx.merge(graph, fill(skeleton, names, tensors, ignore=ignore))


def _with_prefix(tensors: Tensors) -> Tensors:
    """Add the prefix of a language model to names of a model that was saved without.

    As transformers does, it lets a folder of an embedding model be a language model.
    """
    if "embed_tokens.weight" not in tensors.shapes:
        return tensors
    kept = ("lm_head.", "model.")
    return renamed(tensors, lambda x: x if x.startswith(kept) else f"model.{x}")


def _bert_name(name: str) -> str:
    """Drop a model's prefix from a name, and rename the norms of old checkpoints."""
    for prefix in ("bert.", "roberta.", "mpnet."):
        name = name.removeprefix(prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _open_gguf_decoder(path: Path) -> tuple[DecoderConfig, Tensors]:
    file = open_gguf(path)
    shapes = {name: file.shape(name) for name in file.tensors}
    if "token_embd.weight" not in shapes:
        raise InputError(
            f"{path}: tensor token_embd.weight is missing: use the GGUF file of a "
            "language model."
        )
    divisors = None
    if shapes.pop("rope_freqs.weight", None):
        stored = file.read("rope_freqs.weight")
        name = f"{path}: tensor rope_freqs.weight"
        divisors = tuple(finite_floats(stored, np.float32, name).ravel().tolist())
        if min(divisors, default=0.0) <= 0:
            raise InputError(f"{name} must be positive: fetch it again.")
    config = read_gguf_config(file.metadata, str(path), shapes, divisors)
    permuted = file.metadata["general.architecture"] == "llama"
    heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}

    def read(name: str, part: Slices = ()) -> np.ndarray:
        tensor = file.read(name)
        kind = name.split(".")[-2]
        if kind.endswith("_norm"):
            tensor = tensor - config.norm_offset
        if permuted and kind in heads:
            tensor = unpermute(tensor, heads[kind])
        return tensor[part]

    return config, Tensors(str(path), shapes, read)


def _without_tied_head(tensors: Tensors, head: str, embed: str) -> Tensors:
    """Drop the stored output head, which must be a copy of the embedding."""
    if head not in tensors.shapes or embed not in tensors.shapes:
        return tensors
    if not np.array_equal(tensors.read(head), tensors.read(embed)):
        raise InputError(
            f"{tensors.where}: {head} differs from {embed} although the config ties "
            "them: set tie_word_embeddings to false."
        )
    shapes = {name: shape for name, shape in tensors.shapes.items() if name != head}
    return tensors._replace(shapes=shapes)
