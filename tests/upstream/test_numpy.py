"""NumPy, seen in 2.4, and ml_dtypes, seen in 0.6."""

import gc
import subprocess
import sys
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest


def test_load_leaves_a_damaged_file_open(tmp_path):
    """NumPy 2.4: `np.load` of a path leaves the file open if its zip is damaged.

    A file that starts like a zip archive is handed to the reader of archives, and
    nobody closes it when that one raises. So `run_stage` (goracs_jax/runs/stages.py)
    opens the file itself.
    """
    path = tmp_path / "x.npy"
    path.write_bytes(b"PK\x03\x04 damaged")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(zipfile.BadZipFile):
            np.load(path)
        gc.collect()
    assert [w for w in caught if w.category is ResourceWarning], (
        "np.load closes what it opened: runs/stages.py may pass it a path"
    )


def test_bfloat16_is_no_float():
    """NumPy 2.4 with ml_dtypes 0.6: bfloat16 is no subtype of `np.floating`.

    So `check_inputs` (goracs_jax/cost/checks.py) asks `jnp.issubdtype` instead.
    """
    assert not np.issubdtype(ml_dtypes.bfloat16, np.floating), (
        "NumPy knows bfloat16 as a float: cost/checks.py may ask NumPy"
    )


def test_types_are_merged_to_a_common_one():
    """NumPy 2.4: an array of 1 and "1" has two equal strings.

    So the classes of rows (goracs_jax/selection/classes.py) are compared as Python's
    own integers and strings.
    """
    assert len(np.unique(np.array([1, "1"]))) == 1, (
        "NumPy keeps integers and strings apart: so may selection/classes.py"
    )


@pytest.mark.parametrize("first", ["", "import ml_dtypes; "])
def test_bfloat16_has_no_name_without_ml_dtypes(first):
    """NumPy 2.4: "bfloat16" is a type only once ml_dtypes is imported.

    safetensors 0.8 asks NumPy for it by this name, so models/tensors.py imports
    ml_dtypes without another use.
    """
    code = f"{first}import numpy; numpy.dtype('bfloat16')"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True
    )
    assert (done.returncode == 0) == bool(first), (
        "NumPy knows bfloat16 by itself: the import in models/tensors.py can go"
    )
