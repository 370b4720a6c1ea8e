"""The stages that a selection from texts needs: rows, rewards, and short trainings."""

from typing import NamedTuple

from goracs_jax.errors import InputError
from goracs_jax.jobs.rows import Sources
from goracs_jax.jobs.select_config import (
    GRADIENT,
    LLM_SOURCES,
    SUBSPACE,
    SelectConfig,
)
from goracs_jax.runs.opened import Llm, Pool, SentenceEncoder, open_encoder, open_llm
from goracs_jax.runs.reading import scored_in
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import Arrays, Stage
from goracs_jax.settings import Select


class TextStages(NamedTuple):
    """What is selected from, by symbol: see `goracs_jax.jobs.select_inputs`."""

    stages: dict[str, Stage]  # in the order to run them
    arrays: Arrays  # rows of files
    sha256: dict[str, str]  # of the files


def stages_of(
    s: Select,
    config: SelectConfig,
    train: Pool,
    valid: Pool,
    *,
    norms: bool,
) -> TextStages:
    """Make the stages of the rows and rewards of texts; none is run.

    Args:
        s: The flags.
        config: What they ask for.
        train: The training examples.
        valid: The validation examples.
        norms: Whether the norms or errors of the gradient pass are needed.

    Raises:
        InputError: A model is missing, or a file of rows does not fit the examples.
    """
    sources = config.symbols
    by_llm = norms or config.by_loss_drop or not {*sources}.isdisjoint(LLM_SOURCES)
    by_gradients = not {*sources}.isdisjoint((GRADIENT, SUBSPACE))
    embedder, llm = _open(s, by_text="text" in sources, by_llm=by_llm)
    scored = scored_in(train, s.labels)
    made = Sources.of(s, (train, valid), embedder, llm, scored, s.out, s.seed)
    plain = _stages(made, config, norms=norms)
    if by_llm and s.adapter_from_pool is not None:
        warm = (train, s.adapter_from_pool, s.seed)
        adapter, made = made.warmed(s, *warm)
        stages = {"adapter": adapter}
        # What they read is known before the adapter is trained.
        stages |= {
            symbol: stage._replace(check=plain.stages[symbol].prepare)
            for symbol, stage in _stages(made, config, norms=norms).stages.items()
        }
        return plain._replace(stages=stages)
    if not s.adapter and (config.by_loss_drop or by_gradients):
        say(
            "gradients of a fresh adapter say little: give --adapter-from-pool 0.05, "
            "or an --adapter that was trained."
        )
    return plain


def _stages(made: Sources, config: SelectConfig, *, norms: bool) -> TextStages:
    """Make the stages of rows and rewards, and read the rows of files."""
    found = TextStages({}, {}, {})
    if norms:
        found.stages["g"] = made.norms
    if config.by_loss_drop:
        found.stages["path"], found.stages["r"] = made.loss_drop()
    for name, symbols in config.symbols.items():
        sides = made.sides(name)
        for symbol, rows in zip(symbols, sides[:2], strict=True):
            if isinstance(rows, Stage):
                found.stages[symbol] = rows
            else:
                found.arrays[symbol], found.sha256[symbol] = rows, sides.sha256
    return found


def _open(
    s: Select, *, by_text: bool, by_llm: bool
) -> tuple[Llm | SentenceEncoder | None, Llm | None]:
    """Open what embeds texts, and the LLM, as far as they are needed.

    Raises:
        InputError: One is needed and not given.
    """
    if not s.model and (by_llm or (by_text and not s.encoder)):
        raise InputError(
            "--model is missing: the space, the reward or the method needs gradients "
            "or hidden states of a language model (gradient norms are not needed with "
            "--lambda 0), or embeddings without --encoder."
        )
    llm = None
    if by_llm or (by_text and not s.encoder):
        assert s.model is not None
        llm = open_llm(s.model, s.adapter, s.seed, s, template=s.template)
    return (open_encoder(s.encoder) if s.encoder and by_text else llm), llm
