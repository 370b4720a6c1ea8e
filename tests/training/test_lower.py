"""Adapters in the last layers: the layers below run once, with the same result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goracs_jax.ahead.traced import count_flops
from goracs_jax.errors import InputError
from goracs_jax.llm.batches import Batch
from goracs_jax.llm.lower import (
    LowerTable,
    distinct,
    lower_pass,
    lower_states,
    starts_of,
)
from goracs_jax.llm.tokens import ragged
from goracs_jax.models import Decoder, DecoderConfig, LoraConfig
from goracs_jax.models.targets import Rules, last_layers
from goracs_jax.training import FinetuneConfig, finetune
from goracs_jax.training.step import accumulate, split, zero_sums

SIZES = DecoderConfig.tiny(num_layers=5)
LAST = Rules(targets=("q_proj", "down_proj"), layers=last_layers("last:2", 5))
CONFIG = FinetuneConfig(
    steps=9, learning_rate=1e-2, warmup_steps=1, batch_size=4, valid_every=1
)


def decoder(rules=LAST, num_layers=5, **changes):
    lora = LoraConfig(r=4, alpha=8.0, dropout=0.2, rules=rules, **changes)
    sizes = DecoderConfig.tiny(num_layers=num_layers)
    return Decoder(sizes, lora, key=jax.random.key(0))


def curve(done):
    names = ("loss", "grad_norm", "valid_loss")
    return [entry[name] for entry in done.log for name in names if name in entry]


@pytest.mark.parametrize("kind", [{}, {"dora": True, "bias": True}, {"head": True}])
def test_training_is_that_of_all_layers(train, valid, monkeypatch, kind):
    """With kept states, with lower layers outside the gradient, and without either."""
    changes = {"tables": ("head",)} if "head" in kind else kind
    model = decoder(**changes)
    given = {"seed": 5}
    inside = finetune(model, train, valid, CONFIG, **given)
    # The table has more texts than are read, as one that several trainings share.
    table = lower_states(model, valid, ragged([[1, 2, 3]]), train)
    kept = finetune(model, train, valid, CONFIG, lower=table, **given)
    with monkeypatch.context() as patch:
        patch.setattr(LoraConfig, "frozen_layers", lambda self: 0)
        jax.clear_caches()
        plain = finetune(model, train, valid, CONFIG, **given)
    jax.clear_caches()
    assert len(curve(plain)) == 9 * 2 + 3
    for other in (inside, kept):
        # float32: sums of up to a thousand terms in another order, nine steps long.
        np.testing.assert_allclose(curve(other), curve(plain), rtol=2e-5)
        for one, two in zip(
            *(jax.tree.leaves(split(done.model).lora) for done in (other, plain)),
            strict=True,
        ):
            # Adam divides by the size of a gradient, also where that is rounding.
            np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)


def test_states_are_read_and_not_computed(train, valid):
    """States of other texts give another loss."""
    model = decoder()
    table = lower_states(model, train, valid)
    turned = table._replace(table=table.table[::-1])
    one, other = (
        finetune(model, train, valid, CONFIG, lower=lower, seed=5)
        for lower in (table, turned)
    )
    assert abs(one.best_loss - other.best_loss) > 1e-2


@pytest.mark.parametrize(
    ("lora", "layers"),
    [
        (LoraConfig(), 0),
        (LoraConfig(rules=LAST), 3),
        (LoraConfig(rules=LAST, dora=True, bias=True), 3),
        (LoraConfig(rules=LAST, tables=("head",)), 3),
        (LoraConfig(rules=LAST, tokens=(("head", (4,)),)), 3),
        (LoraConfig(rules=LAST, tables=("embed",)), 0),
        (LoraConfig(rules=LAST, tokens=(("embed", (4,)),)), 0),
        (LoraConfig(rules=Rules(targets=("q_proj",), layers=(0, 4))), 0),
        (LoraConfig(rules=Rules(targets=("layers.1.self_attn.q_proj", "o_proj"))), 0),
        (LoraConfig(rules=Rules(targets=("layers.1.self_attn.q_proj",))), 1),
    ],
)
def test_layers_below_all_that_is_trained(lora, layers):
    model = Decoder(SIZES, lora, key=jax.random.key(0))
    assert model.frozen_layers == layers
    ids = jnp.arange(12).reshape(2, 6)
    lower = model.lower(ids)
    assert (lower is ids) == (layers == 0)
    # The same operations, in programs that XLA may fuse in other ways.
    at = jnp.array([[1, 5], [2, 3]])
    expected = model.hidden_at(ids, at)
    np.testing.assert_allclose(model.hidden_at(lower, at), expected, atol=1e-5)


def test_no_layer_is_below(train):
    with pytest.raises(InputError, match="no layer is below"):
        lower_states(decoder(None), train)


def test_a_step_has_the_work_of_the_layers_that_are_trained(train):
    ids = np.zeros((4, 16), np.int32)
    batch, key = Batch(np.arange(4, dtype=np.int32), ids, ids), jax.random.key(0)

    def flops(model, lower=None):
        parts = split(model)
        traced = accumulate.trace(parts, zero_sums(parts), batch, key, lower, most=16)
        return count_flops(traced.jaxpr)

    deep, flat = decoder(), decoder(Rules(targets=LAST.targets), num_layers=2)
    assert flops(deep, deep.lower(jnp.asarray(ids))) == flops(flat)
    # Without states the layers below run forward, and not backward.
    run = lower_pass(deep)
    below = count_flops(run.fn.trace(*run.given, ids, ids).jaxpr)
    assert flops(deep) == flops(flat) + below
    assert below > flops(flat) / 2  # three layers forward, two forward and backward


def test_texts_are_found_by_content():
    one, two = ragged([[1, 2], [3]], [[1, 2], [3]]), ragged([[3], [4, 5], [1, 2]])
    texts = distinct(one, two)
    assert [texts.ids.tolist(), texts.offsets.tolist()] == [
        [1, 2, 3, 4, 5],
        [0, 2, 3, 5],
    ]
    table = LowerTable(np.arange(10.0).reshape(5, 2), starts_of(texts))
    assert table.has(one, two)
    assert not table.has(one, ragged([[2, 1]]))
    ids = np.array([[4, 5, -1], [-1, -1, -1], [3, -1, -1]], np.int32)
    found = table.states(ids).states
    assert found.tolist() == [
        [[6, 7], [8, 9], [0, 0]],
        [[0, 0], [0, 0], [0, 0]],
        [[4, 5], [0, 0], [0, 0]],
    ]
