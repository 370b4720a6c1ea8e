"""What the compiler of NVIDIA's GPUs reads in place of a device."""

from goracs_jax.devices import DeviceKind

#: What the compiler of GPUs must know of a Hopper chip (NVIDIA's "H100 Tensor Core GPU
#: Architecture" and the CUDA programming guide, compute capability 9.0).
_HOPPER = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 48 << 10,
    "shared_memory_per_block_optin": 227 << 10,
    "shared_memory_per_core": 228 << 10,
    "threads_per_core_limit": 2048,
    "registers_per_block_limit": 64 << 10,
    "registers_per_core_limit": 64 << 10,
    "core_count": 132,
    "fpus_per_core": 128,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "l2_cache_size": 50 << 20,
    "clock_rate_ghz": 1.98,
}
#: Kinds of GPU that programs can be compiled for, and their full names.
TARGETS = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200"}


def target_text(kind: DeviceKind) -> str:
    """Write what the compiler of GPUs reads instead of asking a device.

    Args:
        kind: A kind of `TARGETS`.

    >>> from goracs_jax.devices import kind_of
    >>> "memory_bandwidth: 4800000000000" in target_text(kind_of("h200"))
    True
    """
    facts = _HOPPER | {
        "memory_bandwidth": int(kind.bandwidth),
        "device_memory_size": kind.memory,
    }
    lines = "\n".join(f"  {name}: {value}" for name, value in facts.items())
    return (
        f"gpu_device_info {{\n{lines}\n"
        "  cuda_compute_capability { major: 9 minor: 0 }\n}\n"
        'platform_name: "CUDA"\n'
        "dnn_version_info { major: 9 minor: 10 }\n"
        f'device_description_str: "{TARGETS[kind.name]}"\n'
    )
