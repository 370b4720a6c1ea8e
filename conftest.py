"""How the suite runs: programs compile fast, and once for all processes of a run.

A test compiles many programs and runs each for milliseconds. So XLA spends as little
as it can on making them fast, and what one process has compiled the others read from
a folder of this run: workers of pytest-xdist and the programs that tests start inherit
the environment.
"""

import atexit
import gc
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

#: XLA's older code for fusions, in one part: the program of a decoder's gradient
#: compiles in a fifth of the time. The XLA of jaxlib 0.11 has no older code, and ends a
#: process that asks for it.
FLAGS = ("--xla_cpu_parallel_codegen_split_count=1",)
if version("jaxlib").startswith("0.10."):
    FLAGS += ("--xla_cpu_use_fusion_emitters=false",)

# All of this comes before anything imports JAX. Parity with PyTorch is for programs as
# users run them: there the Makefile sets the variable to 0.
if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1":
    flags = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys((*FLAGS, *flags)))
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    programs = tempfile.TemporaryDirectory(prefix="goracs-programs-")
    atexit.register(programs.cleanup)
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": programs.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

# How long an example takes says more of the machine than of the code.
settings.register_profile("goracs", deadline=None)
settings.load_profile("goracs")

# A fault of the program fails a test with its traceback.
os.environ["GORACS_TRACEBACK"] = "1"

# Compiled programs and their shapes stay alive by the million, and a collection walks
# over all of them: a few large ones cost less than many.
gc.set_threshold(100_000, 50, 50)

#: Memory maps of this process, where the system lists them.
MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def _drop_programs():
    """Return the memory maps of compiled programs, of which Linux gives 65,530.

    The largest file here compiles programs of 15,000; a process that has no maps left
    crashes.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 20_000:
        import jax

        jax.clear_caches()
