"""Gradients and embeddings on one device and on meshes of eight; a script."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from trainers.losses import DATA, IN, nnx_case

import goracs_jax as gx
from goracs_jax.mesh import spread_batch
from goracs_jax.trainers import gradients
from goracs_jax.trainers.arguments import checked_mesh
from goracs_jax.trainers.examples import placed

W = jax.random.normal(jax.random.key(1), (16, IN))


def main(out: str) -> None:
    """Write all arrays, and the program for eight devices, to one file."""
    loss, params, frozen = nnx_case(remat=True)
    devices = jax.devices()
    assert len(devices) == 8
    kinds = (AxisType.Auto, AxisType.Auto)
    by_fsdp = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    # 21 examples: each device gets three, of which some are repeated.
    meshes = {
        "one": (None, frozen),
        "auto": (jax.make_mesh((4, 2), ("data", "model"), axis_types=kinds), frozen),
        "explicit": (jax.make_mesh((8,), ("data",)), frozen),
        "sharded": (jax.make_mesh((8,), ("data",)), over(frozen, by_fsdp)),
    }
    found = {}
    for name, (mesh, weights) in meshes.items():
        got = gx.example_gradients(
            *(loss, params, weights, DATA),
            mesh=mesh, batch_size=24, project_dim=6, key=jax.random.key(0),
        )  # fmt: skip
        found |= {f"{name} {k}": v for k, v in got._asdict().items() if v is not None}
        x = gx.example_embeddings(lambda e: jnp.tanh(W @ e["x"]), DATA, mesh=mesh)
        found[f"{name} embeddings"] = x
    mesh = checked_mesh(meshes["explicit"][0])
    given = (loss, False, None, None, None, *placed((params, frozen), mesh))
    rows = {k: np.resize(v, (24, *v.shape[1:])) for k, v in DATA.items()}
    program = gradients._rows.lower(*given, *spread_batch((rows,), mesh)).compile()
    np.savez(out, text=np.array(program.as_text()), **found)


def over(tree, mesh):
    """Kernels over a trainer's own mesh, where their first axis divides."""

    def put(x):
        spec = ("fsdp",) if x.ndim and x.shape[0] % 8 == 0 else ()
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

    return jax.tree.map(put, tree)


if __name__ == "__main__":
    main(sys.argv[1])
