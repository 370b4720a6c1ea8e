"""States of lower layers in a file: what it depends on, and how it goes on."""

import shutil

import jax
import numpy as np
import pytest

from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.models.targets import Rules
from goracs_jax.runs import lower
from goracs_jax.runs.opened import Llm

RNG = np.random.default_rng(0)
POOL, MORE = (
    ragged([RNG.integers(0, 90, n).tolist() for n in lengths])
    for lengths in ([9, 20, 31, 40, 60], [9, 50])
)
TEXTS, TOKENS = 7, 219


def llm(layer=2, seed=0, dtype=np.float32, **identity):
    rules = Rules(targets=("q_proj",), layers=(layer,))
    sizes = DecoderConfig.tiny(num_layers=3)
    model = Decoder(
        sizes, LoraConfig(rules=rules), key=jax.random.key(seed), dtype=dtype
    )
    name = {"model": f"m{seed}", "dtype": np.dtype(dtype).name} | identity
    return Llm(lambda: model, lambda: None, name, None, lambda: sizes)  # pyright: ignore


def keep(folder, model, reads=TEXTS + 1):
    return lower.keep_states(folder, model, (POOL, MORE), reads)


@pytest.mark.parametrize("dtype", [np.float32, jax.numpy.bfloat16])
def test_the_table_has_the_states_of_every_text(tmp_path, dtype):
    opened = llm(dtype=dtype)
    kept, (model, _) = keep(tmp_path, opened), opened.load()
    assert kept.table.shape == (TOKENS, 32)
    assert kept.table.dtype == np.dtype(dtype)
    for ids in np.split(POOL.ids, POOL.offsets[1:-1]):
        expected = model.lower(jax.numpy.asarray(ids)).states
        # Alone and without padding: the same sums, in the type of the activations.
        error = 1e-5 if dtype == np.float32 else 2**-6
        (found,) = kept.states(ids[None]).states
        np.testing.assert_allclose(
            found.astype(np.float32), expected.astype(np.float32), atol=error
        )


def test_what_it_depends_on(tmp_path):
    keep(tmp_path, llm())
    keep(tmp_path, llm(adapter="another"))  # it is above these layers
    assert len(list(tmp_path.iterdir())) == 1
    for number, other in enumerate(
        (llm(layer=1), llm(seed=1), llm(dtype=jax.numpy.bfloat16)), 2
    ):
        keep(tmp_path, other)
        assert len(list(tmp_path.iterdir())) == number
    lower.keep_states(tmp_path, llm(), (POOL,), 99)
    assert len(list(tmp_path.iterdir())) == 5


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(lower, "batch_tokens", lambda *given: 64)
    whole = keep(tmp_path / "whole", llm())
    (home,) = (tmp_path / "whole").iterdir()
    monkeypatch.setattr(lower, "PART_SECONDS", 0.0)
    real, seen = lower.results, []

    def stopped(run, batches):
        seen.append(len(batches))
        for number, found in enumerate(real(run, batches)):
            if number == 2 and len(seen) == 1:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(lower, "results", stopped)
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path / "part", llm())
    again = keep(tmp_path / "part", llm())
    keep(tmp_path / "part", llm())
    assert seen[0] > 3
    assert seen == [seen[0], seen[0] - 2]  # the third call computes nothing
    np.testing.assert_array_equal(again.table, whole.table)
    # A record without its states, or one that is damaged, starts afresh.
    (tmp_path / "part" / home.name / lower.STATES).unlink()
    keep(tmp_path / "part", llm())
    (tmp_path / "part" / home.name / lower.RECORD).write_text("{")
    last = keep(tmp_path / "part", llm())
    assert seen[2:] == [seen[0]] * 2
    np.testing.assert_array_equal(last.table, whole.table)


def test_where_it_does_not_pay(tmp_path, monkeypatch, capsys):
    assert keep(tmp_path, llm(layer=0)) is None  # no layer is below
    assert keep(tmp_path, llm(), reads=TEXTS) is None  # as often as there are texts
    assert not list(tmp_path.iterdir())
    kept = keep(tmp_path / "earlier", llm())
    again = keep(tmp_path / "earlier", llm(), reads=1)  # it is there already
    np.testing.assert_array_equal(again.table, kept.table)
    shutil.rmtree(tmp_path / "earlier")
    capsys.readouterr()
    monkeypatch.setattr(lower, "SPARE", 1 << 60)
    assert keep(tmp_path, llm()) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert "states below layer 2" in line
    assert not list(tmp_path.iterdir())
