"""A tiny model with adapters, some examples, and their gradients by a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from goracs_jax.llm.tokens import NOT_SCORED, Tokens, ragged
from goracs_jax.models import Decoder, DecoderConfig

TINY = DecoderConfig.tiny(num_layers=3)
# Sums over some thousand float32 products in another order.
F32 = {"rtol": 1e-4}


def trained(model: Decoder) -> Decoder:
    """A model whose lora_B is not zero, as after some training."""
    keys = iter(jax.random.split(jax.random.key(7), 100))
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    noise = lambda w: w + 0.1 * jax.random.normal(next(keys), w.shape)
    return nnx.merge(graph, jax.tree.map(noise, lora), frozen)


def some_tokens() -> Tokens:
    """Examples of several lengths, of which not all tokens are scored."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, TINY.vocab_size, n).tolist() for n in (30, 3, 18, 3, 18)]
    labels = [[NOT_SCORED] * (i % 2) + row[i % 2 :] for i, row in enumerate(ids)]
    labels[0][:20] = [NOT_SCORED] * 20
    return ragged(ids, labels)


def example_loss(model, ids, labels):
    """All logits at once, one example, no padding: the textbook's loss."""
    logits = model(ids)[:-1]
    scored = jnp.where(labels[1:] >= 0, 1.0, 0.0)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.maximum(labels[1:], 0)
    )
    return jnp.sum(losses * scored) / jnp.sum(scored)


def rows(tokens):
    """Ids and labels of each example."""
    for start, stop in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True):
        yield (
            jnp.asarray(tokens.ids[start:stop]),
            jnp.asarray(tokens.labels[start:stop]),
        )


def loop_gradients(model, tokens, which):
    """The gradient of each example alone, flat."""
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    loss = lambda lora, *row: example_loss(nnx.merge(graph, lora, frozen), *row)
    grad = jax.jit(jax.grad(loss))
    for row in rows(tokens):
        gradient = grad(lora, *row)
        if which == "last_v_lora_b":
            gradient = gradient["layers"]["attention"]["v_proj"]["lora_b"][...][-1]
        yield np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])
