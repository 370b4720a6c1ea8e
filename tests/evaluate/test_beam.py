import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from goracs_jax.evaluate.beam import Ending, beam_search
from goracs_jax.models import Decoder, DecoderConfig
from goracs_jax.models.decoder import Layout

# Larger weights than fresh ones have: the beams must differ.
TINY = DecoderConfig.tiny(vocab_size=12, num_layers=2)
hidden = nnx.jit(lambda model, ids: model.hidden(ids))


@pytest.fixture(scope="module")
def model():
    model = Decoder(TINY, key=jax.random.key(3))
    model.embed[...] = 20 * model.embed[...]
    return model


@nnx.jit
def in_parts(model, ids):
    """The states of [batch, 9] tokens, computed in three calls with a cache."""
    positions = jnp.broadcast_to(jnp.arange(9), ids.shape)
    cache, states = model.empty_cache(len(ids), 0), []
    for first, last in [(0, 4), (4, 5), (5, 9)]:
        related = jnp.ones((len(ids), last - first, last), bool)
        layout = Layout(positions[:, :last], related)
        part, new = model.extend(ids[:, first:last], layout, cache)
        cache = jax.tree.map(lambda *x: jnp.concatenate(x, axis=2), cache, new)
        states.append(part)
    return jnp.concatenate(states, axis=1)


# Everything that a family adds to attention: windows, caps, norms of q and k.
GEMMA = DecoderConfig.tiny(
    num_layers=3,
    sliding=(True, False, True),
    window=3,
    attention_softcap=5.0,
    logit_softcap=3.0,
    qk_norm=True,
)


@pytest.mark.parametrize("config", [TINY, GEMMA])
def test_cached_tokens_give_the_states_of_the_whole(config):
    model = Decoder(config, key=jax.random.key(3))
    ids = jax.random.randint(jax.random.key(1), (2, 9), 0, 12)
    # float32 sums in another order.
    np.testing.assert_allclose(
        in_parts(model, ids), hidden(model, ids), rtol=1e-5, atol=1e-5
    )


def test_branches_of_a_text_do_not_see_each_other(model):
    """[1 2 3] goes on with [4 5] and with [6], all in one sequence."""
    ids = jnp.array([[1, 2, 3, 4, 5, 6, -1]])
    positions = jnp.array([[0, 1, 2, 3, 4, 3, 0]])
    branch = jnp.array([0, 0, 0, 1, 1, 2, 3])
    related = (branch == 0)[None, :] | (branch[:, None] == branch[None, :])
    laid_out = nnx.jit(lambda model, *x: model.hidden(ids, Layout(*x)))
    packed = laid_out(model, positions, related[None])[0]
    assert np.isfinite(packed).all()
    alone = hidden(model, jnp.array([[1, 2, 3, 4, 5], [1, 2, 3, 6, -1]]))
    np.testing.assert_allclose(packed[:5], alone[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(packed[5], alone[1, 3], rtol=1e-5, atol=1e-5)


@nnx.jit
def last_log_probs(model, rows, lengths):
    states = model.hidden(rows)[jnp.arange(len(rows)), lengths - 1]
    return jax.nn.log_softmax(model.logits(states))


def search_by_hand(model, prompt, ending, beams, new):
    """The rules in plain Python, with a whole forward pass for every beam and token."""
    weight = lambda ids: sum(int(ending.weights[i]) for i in ids)
    running, finished = [((), 0.0)], []
    for length in range(1, new + 1):
        rows = np.full((beams, 12), -1)
        for row, (ids, _) in zip(rows, running, strict=False):
            row[: len(prompt) + len(ids)] = [*prompt, *ids]
        lengths = jnp.asarray((rows >= 0).sum(axis=1))
        log_p = np.asarray(last_log_probs(model, jnp.asarray(rows), lengths))
        continued = [
            ((*ids, i), score + float(log_p[beam, i]))
            for beam, (ids, score) in enumerate(running)
            for i in range(12)
        ]
        continued = sorted(continued, key=lambda c: -c[1])[: 2 * beams]
        ends = lambda ids: weight(ids) >= int(ending.limit) or len(ids) == new
        finished += [(i, s / length) for i, s in continued[:beams] if ends(i)]
        finished = sorted(finished, key=lambda c: -c[1])[:beams]
        running = [c for c in continued if not ends(c[0])][:beams]
        if not running:
            break
        if len(finished) == beams and running[0][1] / length <= finished[-1][1]:
            break
    return finished


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_beams_are_those_of_a_search_by_hand(model, limit):
    weights = jnp.zeros(12, jnp.int32).at[jnp.array([3, 7])].set(1).at[0].set(limit)
    ending = Ending(weights, jnp.int32(limit))
    prompts = [[1, 2, 3, 4], [5], [6, 7, 8], [9, 9, 2], [11, 10], [4, 1, 8, 8]]
    padded = np.full((6, 6), -1)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = prompt
    found = beam_search(model, jnp.asarray(padded), ending, beams=2, new=6)
    for prompt, ids, scores in zip(prompts, *found, strict=True):
        expected = search_by_hand(model, prompt, ending, beams=2, new=6)
        assert [tuple(i[i >= 0].tolist()) for i in np.asarray(ids)] == [
            i for i, _ in expected
        ]
        np.testing.assert_allclose(scores, [s for _, s in expected], rtol=1e-5)


def test_a_second_batch_compiles_nothing(model, caplog):
    ending = Ending(jnp.zeros(12, jnp.int32), jnp.int32(1))
    beam_search(model, jnp.array([[1, 2]]), ending, new=2)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        beam_search(model, jnp.array([[3, -1]]), ending, new=2)
        assert not [r for r in caplog.records if "_beam_search" in r.getMessage()]
        beam_search(model, jnp.array([[3, -1]]), ending, new=3)  # another program
        assert [r for r in caplog.records if "_beam_search" in r.getMessage()]
