"""orbax-checkpoint, seen in 0.12.8."""

import pytest


def test_a_relative_folder_is_refused(tmp_path, monkeypatch):
    """orbax 0.12.8: a checkpoint cannot be written under a relative path.

    So `checkpoints` (goracs_jax/training/checkpoint.py) resolves the folder.
    """
    import numpy as np
    import orbax.checkpoint as ocp

    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(ValueError, match="absolute"),
        ocp.CheckpointManager("here") as manager,
    ):
        manager.save(0, args=ocp.args.StandardSave({"x": np.zeros(2)}))
