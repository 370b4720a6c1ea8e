"""Topologies: which devices there would be, and their descriptions for a compiler.

The compilers of TPUs and of NVIDIA's GPUs run on any machine. They come with the extras
`[tpu]` and `[cuda]`; of the latter two wheels are enough, jax-cuda13-plugin and
jax-cuda13-pjrt.
"""

import math
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from goracs_jax.ahead.gpu_target import TARGETS, target_text
from goracs_jax.choices import Remat
from goracs_jax.devices import KINDS, DeviceKind, cpu, kind_of, measured
from goracs_jax.errors import InputError

if TYPE_CHECKING:
    from goracs_jax.llm.sizes import Placement

#: Number of axes of a TPU's network, by kind.
AXES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2, "tpu7x": 3}
#: The most chips that one network connects, by kind (Google Cloud's pages, 2026).
MOST_CHIPS = {"v4": 4096, "v5e": 256, "v5p": 8960, "v6e": 256, "tpu7x": 9216}
#: GPUs of one machine.
PER_HOST = 8

#: What a process must set before it imports JAX, to compile for devices that are not
#: there: a CPU is the only device, and nobody asks the cloud what machine this is.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Topology(NamedTuple):
    """Devices of one kind, by the name that the user gave."""

    name: str
    kind: DeviceKind
    devices: int

    def placement(self, *, model_devices: int, dtype: str, remat: Remat) -> "Placement":
        """Return how passes lie on all of the devices.

        Args:
            model_devices: Devices that share one copy of the model.
            dtype: The type of the frozen weights and the activations.
            remat: What a backward pass keeps.
        """
        from goracs_jax.llm.profile import execution_on, placement_on
        from goracs_jax.models.execution import Execution

        execution = Execution(remat=remat, **execution_on(self.kind))
        data = self.devices // model_devices
        found = placement_on(self.kind, execution, dtype)
        return found._replace(data=data, model=model_devices)

    @property
    def dollars(self) -> tuple[float, float]:
        """The lowest and the highest price of all devices for an hour."""
        low, high = self.kind.dollars
        return low * self.devices, high * self.devices


def parse(name: str) -> Topology:
    """Read the name of a topology.

    Args:
        name: KIND:SHAPE, where the shape is the number of GPUs, or the number of TPU
            chips along each axis of their network.

    Raises:
        InputError: The kind is unknown, or it has no such shape.

    >>> parse("tpu7x:2x2x1").devices, parse("h100:16").devices
    (8, 16)
    """
    kind, colon, shape = name.partition(":")
    if kind not in KINDS or not colon:
        raise InputError(
            f"--topology must be KIND:SHAPE or here, with a kind of {', '.join(KINDS)} "
            f"such as v5e:16x16 or h100:8, got {name!r}."
        )
    found, axes = KINDS[kind], AXES.get(kind, 1)
    if not re.fullmatch(r"[1-9]\d{0,4}" + r"x[1-9]\d{0,4}" * (axes - 1), shape):
        wanted = "the number of GPUs" if axes == 1 else f"{'x'.join('N' * axes)} chips"
        raise InputError(
            f"--topology {kind}:SHAPE needs {wanted} as the shape, got {shape!r}."
        )
    chips = math.prod(map(int, shape.split("x")))
    most = MOST_CHIPS.get(kind, chips)
    if chips > most:
        raise InputError(
            f"--topology {name}: a network of {kind} has at most {most} chips, got "
            f"{chips}."
        )
    if found.platform == "gpu" and chips > PER_HOST and chips % PER_HOST:
        raise InputError(
            f"--topology {name}: more than {PER_HOST} GPUs are whole machines of "
            f"{PER_HOST}: give a multiple of {PER_HOST}."
        )
    return Topology(name, found, chips * found.per_chip)


def here() -> Topology:
    """Describe the devices that JAX sees, with the memory that they offer.

    Raises:
        InputError: Their kind is not known.

    >>> here().name
    'here'
    """
    import jax

    first = jax.devices()[0]
    if first.platform == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        # Several devices that a flag makes of a CPU share its cores and its memory.
        count = jax.device_count()
        cores = max(1, len(os.sched_getaffinity(0)) // count)
        return Topology("here", cpu(cores, memory // count), count)
    memory = (first.memory_stats() or {}).get("bytes_limit")
    return Topology(
        "here", measured(kind_of(first.device_kind), memory), jax.device_count()
    )


def no_compiler(topology: Topology) -> str | None:
    """Say why nothing can be compiled for a topology; None where it can be.

    >>> no_compiler(parse("a100:8"))
    'there is no target for the compiler of a100'
    """
    kind = topology.kind
    if topology.name == "here":
        return None
    if kind.platform == "tpu" and not find_spec("libtpu"):
        return "libtpu is not installed (goracs_jax[tpu])"
    if kind.platform == "gpu":
        if kind.name not in TARGETS:
            return f"there is no target for the compiler of {kind.name}"
        if not (find_spec("jax_plugins") and find_spec("jax_plugins.xla_cuda13")):
            return "the CUDA compiler is not installed (jax-cuda13-plugin and -pjrt)"
    return None


def compiler_devices(topology: Topology) -> Sequence[Any]:
    """Return descriptions of the devices, of which a mesh can be made.

    The process must have started with the variables of `ENVIRONMENT`, unless the
    devices are those at hand.

    Args:
        topology: The topology.

    Raises:
        InputError: `no_compiler` says why, or the compiler knows no such topology.
    """
    if reason := no_compiler(topology):
        raise InputError(f"nothing can be compiled for {topology.name}: {reason}.")
    import jax
    from jax.experimental import topologies

    kind = topology.kind
    if topology.name == "here":
        return jax.devices()
    if kind.platform == "tpu":
        # A machine has four chips or, of some kinds, one.
        lone = {"chips_per_host_bounds": [1, 1, 1]} if topology.devices == 1 else {}
        wanted: dict[str, Any] = {"topology_name": topology.name, **lone}
    else:
        from jax._src import xla_bridge

        # The plugin says that there is no device, and registers its compiler.
        xla_bridge.discover_pjrt_plugins()
        hosts = max(1, topology.devices // PER_HOST)
        wanted = {
            "topology_name": "",
            "target_config": target_text(kind),
            "topology": f"1x{hosts}x{topology.devices // hosts}",
        }
    platform = "cuda" if kind.platform == "gpu" else kind.platform
    try:
        devices = topologies.get_topology_desc(platform=platform, **wanted).devices
    except Exception as error:  # noqa: BLE001 (plugins raise what they like)
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the compiler knows no topology {topology.name}: {reason}"
        ) from None
    if len(devices) != topology.devices:
        raise InputError(
            f"the compiler counts {len(devices)} devices in {topology.name}, and JAX "
            f"shows {topology.devices}: this topology is planned by formulas alone."
        )
    return devices
