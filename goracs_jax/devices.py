"""Kinds of devices: their memory, peaks and prices, as their makers publish them.

Importing this file does not import JAX. A GB is 10^9 bytes, as in data sheets. Prices
are dollars on demand for one device for an hour, as a range over regions or providers.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from goracs_jax.errors import InputError

GB, TERA = 10**9, 1e12


@dataclass(frozen=True, kw_only=True)
class DeviceKind:
    """What is published about a kind of device; of one with two cores, about one core.

    Args:
        name: The name in topologies, such as v5e.
        platform: What JAX calls the platform.
        memory: Bytes of its memory.
        bfloat16: Peak FLOP/s of matrix products of bfloat16, without sparsity.
        float32: Peak FLOP/s of matrix products of float32 with precision HIGHEST.
        bandwidth: Bytes a second between its memory and its cores.
        link: Bytes a second to the other devices, both directions together.
        dollars: The lowest and the highest price of an hour.
        seen_as: A pattern of what JAX calls the kind (`jax.Device.device_kind`).
        per_chip: Devices that share a chip.
        matrix_unit: Rows of a TPU's matrix unit; 0 for other devices.
    """

    name: str
    platform: Literal["tpu", "gpu", "cpu"]
    memory: int
    bfloat16: float
    float32: float
    bandwidth: float
    link: float
    dollars: tuple[float, float]
    seen_as: str
    per_chip: int = 1
    matrix_unit: int = 0

    @property
    def device_kind(self) -> str:
        """The name, where a `jax.Device` has what JAX calls it."""
        return self.name

    def flops(self, dtype: str) -> float:
        """Return the peak of matrix products of this type.

        >>> kind_of("v5e").flops("bfloat16") / kind_of("v5e").flops("float32")
        6.0
        """
        return self.bfloat16 if dtype == "bfloat16" else self.float32


#: A TPU multiplies float32 with precision HIGHEST as six products of bfloat16 (a
#: float32 is the sum of three bfloat16; three of their nine products are too small to
#: matter).
BFLOAT16_PRODUCTS = 6


def _tpu(
    name: str,
    tflops: float,
    memory: int,
    bandwidth: float,
    link: float,
    dollars: tuple[float, float],
    seen_as: str,
    cores: int = 1,
) -> DeviceKind:
    """Divide what is published of a chip by the devices that it has."""
    low, high = dollars
    return DeviceKind(
        name=name,
        platform="tpu",
        memory=memory // cores,
        bfloat16=tflops * TERA / cores,
        float32=tflops * TERA / cores / BFLOAT16_PRODUCTS,
        bandwidth=bandwidth / cores,
        link=link / cores,
        dollars=(low / cores, high / cores),
        seen_as=seen_as,
        per_chip=cores,
        matrix_unit=256 if name in ("v6e", "tpu7x") else 128,
    )


def _gpu(
    name: str,
    tflops: float,
    float32: float,
    memory: int,
    bandwidth: float,
    link: float,
    dollars: tuple[float, float],
) -> DeviceKind:
    return DeviceKind(
        name=name,
        platform="gpu",
        memory=memory,
        bfloat16=tflops * TERA,
        float32=float32 * TERA,
        bandwidth=bandwidth,
        link=link,
        dollars=dollars,
        # Those for PCIe, and those beside another CPU (GH200), have other figures.
        seen_as=rf"\b{name.upper()}\b(?!.*(PCI|NVL))",
    )


# TPUs: chip figures of Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e"
# and "TPU7x (Ironwood)", as of 2026. TPU7x shows JAX two devices for each chip. Prices:
# Google Cloud's list, on demand, as of 2025; v5p from the open catalogue of SkyPilot,
# 2026. The upper ends of v5e and v6e, and tpu7x, are unconfirmed: look at the list.
#
# GPUs: NVIDIA's data sheets "A100 80GB", "H100 SXM", "H200 SXM" and "HGX B200". TF32 is
# off at precision HIGHEST, so float32 runs outside tensor cores. Prices: from the
# cheapest specialised provider to the largest clouds, comparisons of January to May
# 2026 (Mercatus, Codesota); B200: of Lambda and AWS in 2025, unconfirmed.
_ALL = (
    #    name, bfloat16, memory, bandwidth, link, dollars
    _tpu("v4", 275.0, 32 * 2**30, 1228e9, 300e9, (3.22, 3.22), r"TPU v4$"),
    _tpu("v5e", 197.0, 16 * GB, 819e9, 400e9, (1.20, 1.56), r"TPU v5( lite|e)"),
    _tpu("v5p", 459.0, 95 * GB, 2765e9, 1200e9, (4.20, 4.78), r"TPU v5p?$"),
    _tpu("v6e", 918.0, 32 * GB, 1638e9, 800e9, (2.70, 3.24), r"TPU v6( lite|e)"),
    _tpu("tpu7x", 2307.0, 192 * 2**30, 7380e9, 1200e9, (12.0, 12.0), r"TPU ?7x", 2),
    #    name, bfloat16, float32, memory, bandwidth, link, dollars
    _gpu("a100", 312.0, 19.5, 80 * GB, 2039e9, 600e9, (0.80, 3.00)),
    _gpu("h100", 989.0, 67.0, 80 * GB, 3350e9, 900e9, (1.99, 6.88)),
    _gpu("h200", 989.0, 67.0, 141 * GB, 4800e9, 900e9, (2.50, 7.00)),
    _gpu("b200", 2250.0, 75.0, 180 * GB, 7700e9, 1800e9, (3.79, 14.24)),
)
KINDS = {kind.name: kind for kind in _ALL}


def kind_of(name: str) -> DeviceKind:
    """Find a kind by its name, or by what JAX calls it.

    Args:
        name: Such as v5e, or `jax.devices()[0].device_kind`.

    Raises:
        InputError: There is no such kind.

    >>> kind_of("TPU v5 lite").name, kind_of("NVIDIA H100 80GB HBM3").name
    ('v5e', 'h100')
    """
    if name in KINDS:
        return KINDS[name]
    for kind in KINDS.values():
        if re.search(kind.seen_as, name):
            return kind
    raise InputError(f"no device {name!r} is known: give one of {', '.join(KINDS)}.")


def cpu(cores: int, memory: int) -> DeviceKind:
    """Describe a CPU by its cores: a bound for machines with AVX2.

    A core does 32 FLOPs of float32 in a cycle (two fused multiply-adds of eight
    numbers), here at 2.5 GHz; bfloat16 is no faster. Two channels of DDR4-3200 bring
    51 GB/s. A core costs 3 to 5 cents an hour in the large clouds (2025).

    Args:
        cores: The number of cores.
        memory: Bytes of memory.

    >>> cpu(2, 8 * GB).float32
    160000000000.0
    """
    peak = 32 * 2.5e9 * cores
    return DeviceKind(
        name="cpu",
        platform="cpu",
        memory=memory,
        bfloat16=peak,
        float32=peak,
        bandwidth=51.2e9,
        link=51.2e9,
        dollars=(0.03 * cores, 0.05 * cores),
        seen_as="cpu",
    )


def measured(kind: DeviceKind, memory: int | None) -> DeviceKind:
    """Return the kind with the memory that a device of it really offers.

    >>> measured(kind_of("h100"), 79 * GB).memory == 79 * GB
    True
    """
    return replace(kind, memory=memory) if memory else kind
