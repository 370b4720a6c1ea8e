"""How the suite runs: programs compile fast, and once for all processes of a run.

A test compiles many programs and runs each for milliseconds. So XLA spends as little
as it can on making them fast, and what one process has compiled the others read from
a folder of this run (workers of pytest-xdist and the programs that tests start inherit
the environment).
"""

import os
import tempfile
from collections.abc import Iterator

import pytest

#: XLA's older code for fusions, in one part: the program of a decoder's gradient
#: compiles in a fifth of the time.
FLAGS = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
# Before anything imports JAX.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["XLA_FLAGS"] = " ".join((*FLAGS, os.environ.get("XLA_FLAGS", "")))


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Iterator[None]:
    """Programs are kept in a folder of the process that starts the workers."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return (yield)
    with tempfile.TemporaryDirectory(prefix="goracs-programs-") as folder:
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        return (yield)
