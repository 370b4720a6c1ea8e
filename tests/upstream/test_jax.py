"""JAX and XLA on a CPU, seen in jax 0.10.2."""

import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P


def text(fn, *arrays):
    """The compiled program."""
    return jax.jit(fn).lower(*arrays).compile().as_text()


def test_attention_moves_its_scores_in_memory():
    """JAX 0.10.2: `dot_product_attention` transposes the scores of queries and keys.

    Where several query heads share a key head, the scores [batch, keys' heads, time,
    group, time] come out of the product in another order of axes than the softmax
    wants. `attend` (goracs_jax/models/attention.py) puts queries that share a key
    into the rows of one larger product and transposes no scores: twice as fast on a
    CPU in benchmarks.
    """
    batch, time, heads, keys, dim = 2, 16, 4, 2, 8
    q = jnp.ones((batch, time, heads, dim))
    k = jnp.ones((batch, time, keys, dim))
    mask = jnp.tril(jnp.ones((time, time), bool))
    attend = partial(jax.nn.dot_product_attention, mask=mask[None, None])
    program = jax.jit(attend).lower(q, k, k).as_text()
    shape = f"{batch}x{keys}x{time}x{heads // keys}x{time}xf32"
    assert re.search(rf"stablehlo.transpose .*tensor<{shape}>", program), (
        "dot_product_attention transposes no scores: measure whether it can be attend"
    )


@pytest.mark.skipif(
    jax.__version_info__ >= (0, 12), reason="jax 0.12 copies neither: both take as long"
)
@pytest.mark.parametrize(
    ("out", "copied"), [(jnp.bfloat16, True), (jnp.float32, False)]
)
def test_a_bfloat16_product_copies_its_operands_as_float32(out, copied):
    """XLA (jax 0.10.2), CPU: x w in bfloat16 converts both operands to float32 first.

    Where the result is to be float32, the product reads bfloat16 itself, at twice the
    speed. So `product` (goracs_jax/models/lora.py) asks for float32 and rounds. From
    jax 0.12 on (seen in 0.12.0.1) both take as long, and this can go once no older one
    is supported.
    """
    x, w = jnp.ones((64, 128), jnp.bfloat16), jnp.ones((128, 256), jnp.bfloat16)
    program = text(lambda x, w: jnp.matmul(x, w, preferred_element_type=out), x, w)
    assert ("f32[128,256]" in program) == copied, (
        "XLA multiplies bfloat16 otherwise: measure whether models/lora.py still needs "
        "preferred_element_type"
    )


def products(jaxpr):
    """Types of the operands and precision of all products, those inside calls too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            types = [str(v.aval.dtype) for v in equation.invars]
            yield types, equation.params["precision"]
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr):
                yield from products(value.jaxpr)


def test_the_transpose_of_a_mixed_product_multiplies_float32():
    """JAX 0.10.2: the slope of a bfloat16 product with a float32 result is float32.

    So its transpose multiplies float32 with bfloat16, which is slow. `product`
    (goracs_jax/models/lora.py) writes its backward pass itself, from a slope in
    bfloat16.
    """
    x, w = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.bfloat16)
    loss = lambda x: jnp.matmul(x, w, preferred_element_type=jnp.float32).sum()
    *_, (types, _) = products(jax.make_jaxpr(jax.grad(loss))(x).jaxpr)
    assert types == ["float32", "bfloat16"], (
        "JAX transposes a mixed product in bfloat16: the custom_vjp of product can go"
    )


def test_a_custom_backward_pass_is_outside_of_the_callers_precision():
    """JAX 0.10.2: `default_matmul_precision` does not reach what `defvjp` is given.

    The backward pass is traced after the `with` around the forward pass has ended. So
    `product` (goracs_jax/models/lora.py) names its precision in every product.
    """

    @jax.custom_vjp
    def product(x, w):
        return x @ w

    forward = lambda x, w: (x @ w, w)
    product.defvjp(forward, lambda w, slope: (slope @ w.T, jnp.zeros_like(w)))

    def loss(x, w):
        with jax.default_matmul_precision("float32"):
            return product(x, w).sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss))(jnp.ones((2, 3)), jnp.ones((3, 4)))
    found = [precision for _, precision in products(jaxpr.jaxpr)]
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert found == [highest, None], (
        "a custom backward pass has its caller's precision: product need not name it"
    )


def test_an_aligned_array_is_not_copied():
    """JAX 0.10.2, CPU: an array of NumPy at a multiple of 64 bytes is used in place.

    So what `shard_rows` (goracs_jax/mesh.py) is given must not be written to later.
    """
    memory = np.zeros(4096 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    array = memory[start : start + 4096].view(np.float32)
    placed = jax.device_put(array)
    array[0] = 7.0
    assert float(placed[0]) == 7.0, "JAX copies: the warning in shard_rows can go"


def test_slices_that_a_scan_reads_are_copied():
    """XLA (jax 0.10.2), CPU: scanning over w[:-1] makes a copy of all but the last.

    Indexing the whole w in the loop does not. So `Decoder` (goracs_jax/models) scans
    over the numbers of its layers.
    """
    layers, dim = 16, 128
    w, x = jnp.ones((layers, dim, dim)), jnp.ones((2, dim))

    def sliced(w, x):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w[:-1])[0]

    def indexed(w, x):
        row = lambda i: jax.lax.dynamic_index_in_dim(w, i, keepdims=False)
        return jax.lax.scan(lambda x, i: (x @ row(i), None), x, jnp.arange(layers - 1))[
            0
        ]

    used = lambda fn: (
        jax.jit(fn).lower(w, x).compile().memory_analysis().temp_size_in_bytes
        / w.nbytes
    )
    assert used(indexed) < 0.3
    assert used(sliced) > 0.9, "XLA reads slices in place: layers can be scanned over"


def test_gathered_values_are_not_known_to_be_replicated():
    """JAX 0.10.2: `shard_map` does not take a gathered value for replicated.

    It follows types, and the type of a gathered value says that it varies. So
    passes over C (goracs_jax/cost) set `check_vma=False`.
    """
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,))
    gather = lambda x: jax.lax.all_gather(x, "rows", tiled=True)
    mapped = partial(
        jax.shard_map, gather, mesh=mesh, in_specs=P("rows"), out_specs=P()
    )
    x = jnp.arange(4.0)
    assert mapped(check_vma=False)(x).tolist() == x.tolist()
    with pytest.raises(ValueError, match="replicat"):
        mapped()(x)


MAPS_OF_PROGRAMS = """
import jax, jax.numpy as jnp
from pathlib import Path

def maps():
    return len(Path("/proc/self/maps").read_text().splitlines())

x = jnp.ones((8, 8))
jax.jit(lambda x: x + 1)(x)
before = maps()
of = lambda i: jax.jit(lambda x: jnp.sort(jnp.tanh(x @ x) + i) @ x)
programs = [of(i) for i in range(40)]
for program in programs:
    program(x)
held = maps()
jax.clear_caches()
print(before, held, maps())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="maps are listed in /proc")
def test_programs_of_a_cpu_hold_memory_maps():
    """jax 0.10.2: each compiled program holds some, until `jax.clear_caches`.

    A process that has as many as the kernel allows (65,530 by default) ends with a
    crash, so conftest.py clears them where they are many, and tests/parity/conftest.py
    after each file.
    """
    command = [sys.executable, "-c", MAPS_OF_PROGRAMS]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, held, after = map(int, told.split())
    assert held - before >= 40, "programs hold no maps: the fixture can go"
    assert after - before < (held - before) / 2
