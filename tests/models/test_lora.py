import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from goracs_jax.models import Decoder, DecoderConfig
from goracs_jax.models.lora import product


@pytest.mark.parametrize(("dtype", "eps"), [("float32", 2**-24), ("bfloat16", 2**-8)])
def test_a_product_and_its_slopes_are_rounded_once(dtype, eps):
    draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape, dtype)
    x, w, slope = draw(0, 2, 5, 300), draw(1, 300, 7), draw(2, 2, 5, 7)
    y, back = jax.vjp(product, x, w)
    found = [y, *back(slope)]
    x, w, slope = (np.asarray(a, np.float64) for a in (x, w, slope))
    terms = [("bti,io", x, w), ("bto,io", slope, w), ("bti,bto", x, slope)]
    for (inputs, a, b), ends, ours in zip(
        terms, ("->bto", "->bti", "->io"), found, strict=True
    ):
        exact = np.einsum(inputs + ends, a, b)
        # The result's rounding, and that of at most 300 float32 additions.
        sizes = np.einsum(inputs + ends, abs(a), abs(b))
        atol = eps * abs(exact) + 300 * 2**-24 * sizes
        assert ours.dtype == dtype
        assert (abs(np.asarray(ours, np.float64) - exact) <= atol).all()


def test_every_product_of_a_gradient_is_full_float32():
    model = Decoder(DecoderConfig.tiny(), key=jax.random.key(0))
    graph, lora, frozen = nnx.split(model, nnx.LoRAParam, ...)
    total = lambda lora: nnx.merge(graph, lora, frozen).hidden(jnp.arange(5)).sum()
    program = str(jax.make_jaxpr(jax.grad(total))(lora))
    products = program.split("dot_general[")[1:]
    # Seven linear layers, forward and backward, adapters and attention.
    assert len(products) > 2 * 7 + 4 + 4
    full = "precision=(Precision.HIGHEST, Precision.HIGHEST)"
    assert [
        p[: p.index("] ")] for p in products if full not in p[: p.index("] ")]
    ] == []
