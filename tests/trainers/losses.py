"""The same small loss as nnx, linen and Equinox modules; one example at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

IN, WIDTH, CLASSES, EXAMPLES = 5, 8, 3, 21

_rng = np.random.default_rng(0)
DATA = {
    "x": _rng.normal(size=(EXAMPLES, IN)).astype(np.float32),
    "y": _rng.integers(0, CLASSES, EXAMPLES).astype(np.int32),
}


def cross_entropy(logits, label):
    return jax.nn.logsumexp(logits) - logits[label]


class NnxNet(nnx.Module):
    """With layers that are computed again backwards, and dropout, if asked for."""

    def __init__(self, rngs, *, remat=False, dropout=0.0):
        self.inner = nnx.Linear(IN, WIDTH, rngs=rngs)
        self.outer = nnx.Linear(WIDTH, CLASSES, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.remat = remat

    def __call__(self, x):
        layer = lambda module, x: jnp.tanh(module(x))
        if self.remat:
            layer = nnx.remat(layer)
        return self.outer(self.dropout(layer(self.inner, x)))


def nnx_case(**options):
    """Params are one layer, frozen the rest."""
    model = NnxNet(nnx.Rngs(0), **options)
    of_outer = nnx.All(nnx.Param, nnx.PathContains("outer"))
    graph, params, frozen = nnx.split(model, of_outer, ...)

    def loss(params, frozen, example):
        logits = nnx.merge(graph, params, frozen)(example["x"])
        return cross_entropy(logits, example["y"])

    return loss, params, frozen


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(CLASSES)(jnp.tanh(linen.Dense(WIDTH)(x)))


def linen_case():
    model = LinenNet()
    params = model.init(jax.random.key(0), jnp.ones(IN))["params"]
    frozen = {"Dense_0": params.pop("Dense_0")}

    def loss(params, frozen, example):
        logits = model.apply({"params": params | frozen}, example["x"])
        return cross_entropy(logits, example["y"])

    return loss, params, frozen


def equinox_case():
    model = eqx.nn.MLP(IN, CLASSES, WIDTH, 2, key=jax.random.key(0))
    is_theta = jax.tree.map(lambda _: False, model)
    is_theta = eqx.tree_at(lambda m: m.layers[-1].weight, is_theta, True)
    params, rest = eqx.partition(model, is_theta)
    frozen, static = eqx.partition(rest, eqx.is_array)

    def loss(params, frozen, example):
        logits = eqx.combine(params, frozen, static)(example["x"])
        return cross_entropy(logits, example["y"])

    return loss, params, frozen


CASES = {"nnx": nnx_case, "linen": linen_case, "equinox": equinox_case}


def rows(data):
    """One example after the other."""
    count = len(jax.tree.leaves(data)[0])
    return [jax.tree.map(lambda x, i=i: x[i], data) for i in range(count)]


def loop(loss, params, frozen, examples):
    """Flat gradients in float64 and losses, by a plain loop of jax.grad."""
    # Fresh: flax cannot change Variables of another trace, here that of jax.jit.
    fresh = lambda p, f, e: loss(p, jax.tree.map(lambda leaf: leaf, f), e)
    of_one = jax.jit(jax.value_and_grad(fresh))
    losses, gradients = [], []
    for example in examples:
        found, gradient = of_one(params, frozen, example)
        losses.append(found)
        flat = [np.ravel(leaf) for leaf in jax.tree.leaves(gradient)]
        gradients.append(np.concatenate(flat).astype(np.float64))
    return np.array(gradients), np.array(losses)
