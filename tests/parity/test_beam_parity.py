"""Beam search against `transformers.generate`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from goracs_jax.evaluate.beam import Ending, beam_search
from goracs_jax.models import load_decoder

EOS, QUOTES = 0, list(range(1, 49))


class ClosingQuote(StoppingCriteria):
    """Two quotation marks behind the prompt, as a user of transformers would write."""

    def __init__(self, prompt: int):
        self.prompt = prompt

    def __call__(self, input_ids, scores, **kwargs):
        marks = torch.isin(input_ids[:, self.prompt :], torch.tensor(QUOTES))
        return marks.sum(dim=1) >= 2


@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_generated_tokens_and_scores(save_decoder, family, beams):
    theirs, folder = save_decoder(family)
    prompts = [
        np.random.default_rng(i).integers(1, 96, n).tolist()
        for i, n in enumerate((5, 12, 9, 12, 7, 3))
    ]
    weights = np.zeros(96, np.int32)
    weights[QUOTES] = 1
    weights[EOS] = 2
    padded = np.full((6, 12), -1)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = prompt
    model = load_decoder(folder, key=jax.random.key(0))
    ending = Ending(jnp.asarray(weights), jnp.int32(2))
    found = beam_search(model, jnp.asarray(padded), ending, beams=beams, new=16)
    lengths = set()
    for i, prompt in enumerate(prompts):
        expected = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=16,
            do_sample=False,
            eos_token_id=EOS,
            pad_token_id=95,
            stopping_criteria=StoppingCriteriaList([ClosingQuote(len(prompt))]),
            return_dict_in_generate=True,
            output_scores=True,
        )
        for beam in range(beams):
            ids = np.asarray(found.ids[i, beam])
            ids = ids[ids >= 0].tolist()
            lengths.add(len(ids))
            sequence = expected.sequences[beam, len(prompt) :].tolist()
            assert sequence[: len(ids)] == ids
            assert set(sequence[len(ids) :]) <= {95, EOS}
        # Sums of up to 16 float32 logarithms of size ten.
        np.testing.assert_allclose(
            found.scores[i], expected.sequences_scores, rtol=1e-4
        )
    assert len(lengths) > 1  # some ended before the last token
