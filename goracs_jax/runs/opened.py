"""From files to checked inputs, and to the stages that several verbs share."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from goracs_jax.choices import Dtype
from goracs_jax.data.examples import Example, read_examples
from goracs_jax.errors import InputError
from goracs_jax.files import hash_files
from goracs_jax.llm.embeddings import embed_with_decoder, embed_with_encoder
from goracs_jax.llm.gradients import Scores, Which, example_scores, projected_gradients
from goracs_jax.llm.prompts import Prompt, format_prompt
from goracs_jax.llm.tokens import LabelMode, Mapper, Tokens, load_tokenizer, tokenize
from goracs_jax.mesh import model_mesh
from goracs_jax.models import (
    Decoder,
    Encoder,
    LoraConfig,
    load_adapter,
    load_decoder,
    load_encoder,
    read_lora_config,
)
from goracs_jax.models.sharding import spread_decoder
from goracs_jax.runs.stages import UNREADABLE, Arrays, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


# An upper estimate of an embedding's width, before the model is read.
WIDTH = 4096


class Pool(NamedTuple):
    """The examples of a file, checked, and its hash."""

    examples: list[Example]
    sha256: str

    @property
    def prompts(self) -> list[Prompt]:
        """The text of each example."""
        return [format_prompt(example.record) for example in self.examples]

    @property
    def places(self) -> list[str]:
        """Where each example stands, for messages."""
        return [example.place for example in self.examples]


class Llm(NamedTuple):
    """A decoder on disk: loaded on first use, hashed for the names of stages.

    A fresh adapter has B = 0: its seed decides gradients and nothing else.
    """

    load: Callable[[], tuple[Decoder, "PreTrainedTokenizerFast"]]
    identity: dict[str, str]
    seed: int | None  # None where an adapter is given


class SentenceEncoder(NamedTuple):
    """An encoder on disk, likewise."""

    load: Callable[[], tuple[Encoder, "PreTrainedTokenizerFast"]]
    identity: dict[str, str]


def read_pool(path: Path) -> Pool:
    """Read and check a file of examples."""
    examples = read_examples(path)
    return Pool(examples, hash_files(path))


def open_llm(
    model: Path,
    adapter: Path | None,
    seed: int,
    dtype: Dtype = "float32",
    model_devices: int = 1,
) -> Llm:
    """A decoder with its adapter, or with a fresh one drawn from the seed.

    Where there are many devices, it is loaded into the host's memory and spread.
    """
    mesh = model_mesh(jax.devices(), model_devices)
    home = jax.local_devices(backend="cpu")[0] if mesh.size > 1 else None

    @cache
    def load() -> tuple[Decoder, "PreTrainedTokenizerFast"]:
        lora = read_lora_config(adapter) if adapter else LoraConfig()
        with jax.default_device(home):
            key = jax.random.key(seed)
            decoder = load_decoder(model, lora=lora, key=key, dtype=jnp.dtype(dtype))
            if adapter:
                decoder = load_adapter(decoder, adapter)
        decoder = spread_decoder(decoder, mesh) if home else decoder
        return decoder, load_tokenizer(model)

    identity = {"model": hash_model(model), "dtype": dtype}
    if adapter:
        identity["adapter"] = hash_model(adapter)
    return Llm(load, identity, None if adapter else seed)


def open_encoder(folder: Path) -> SentenceEncoder:
    """A sentence encoder."""

    @cache
    def load() -> tuple[Encoder, "PreTrainedTokenizerFast"]:
        return load_encoder(folder), load_tokenizer(folder)

    return SentenceEncoder(load, {"encoder": hash_model(folder)})


def bytes_to_store(n_rows: int, width: int = WIDTH) -> int:
    """An upper estimate of what embeddings or gradients of n examples take on disk."""
    return 3 * 4 * width * n_rows  # as parts, as a stage and as a file, float32


def keep_apart(out: Path, *sources: Path | None, flag: str = "--out") -> None:
    """Refuse to write over what is read, or into a folder that is hashed.

    Raises:
        InputError: `out` is one of the sources or lies in one.
    """
    for source in sources:
        if source and out.resolve().is_relative_to(source.resolve()):
            raise InputError(
                f"{flag} {out} lies in the input {source}: choose another."
            )


def hash_model(path: Path) -> str:
    """SHA-256 of a model's file or folder.

    Raises:
        InputError: There is none.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path.")
    return hash_files(path)


def tokenize_pool(
    texts: list[Prompt], places: list[str], llm: Llm, labels: LabelMode = "all"
) -> Tokens:
    """Tokens of texts for an LLM, those of `labels` scored."""
    decoder, tokenizer = llm.load()
    context = decoder.config.max_positions
    return tokenize(texts, tokenizer, labels=labels, context=context, places=places)


class Projection(NamedTuple):
    """How gradients are projected."""

    dim: int
    dtype: Literal["float32", "float16"]
    seed: int


def norms_stage(
    pool: Pool,
    llm: Llm,
    which: Which,
    labels: LabelMode,
    projection: Projection | None = None,
) -> Stage:
    """Arrays `norms`, `losses` and `errors` of a pool, and `projections` if asked for.

    All come from one pass; the norms are the first.
    """

    @cache
    def prepare() -> tuple[Decoder, Tokens]:
        decoder, _ = llm.load()
        return decoder, tokenize_pool(pool.prompts, pool.places, llm, labels)

    def named(scores: Scores) -> Arrays:
        return {"norms": scores.norm, "losses": scores.loss, "errors": scores.error}

    def compute(mapper: Mapper) -> Arrays:
        if projection is None:
            return named(example_scores(*prepare(), which=which, mapper=mapper))
        scores, rows = projected_gradients(
            *prepare(),
            dim=projection.dim,
            dtype=projection.dtype,
            # Not the key of the fresh adapter.
            key=jax.random.fold_in(jax.random.key(projection.seed), 1),
            which=which,
            mapper=mapper,
        )
        return {**named(scores), "projections": rows}

    inputs = {
        "data": pool.sha256,
        "which": which,
        "labels": labels,
        "seed": llm.seed,
        **llm.identity,
    }
    if projection:
        inputs["projection"] = projection._asdict()
    return Stage("gradient-norms", inputs, compute, prepare)


def embedded_texts(pool: Pool, labels: LabelMode) -> list[Prompt]:
    """What is embedded of each example: prompt and answer, or the prompt alone."""
    return [p if labels == "all" else Prompt(p.prompt, "") for p in pool.prompts]


def embed_stage(
    name: str, pool: Pool, source: Llm | SentenceEncoder, labels: LabelMode
) -> Stage:
    """The embeddings of a pool, one row an example."""
    texts = embedded_texts(pool, labels)
    inputs = {"data": pool.sha256, "labels": labels, **source.identity}
    if isinstance(source, SentenceEncoder):

        def encode(mapper: Mapper) -> Arrays:
            encoder, tokenizer = source.load()
            joined = [text.prompt + text.answer for text in texts]
            x = embed_with_encoder(encoder, tokenizer, joined, mapper=mapper)
            return {"embeddings": x}

        return Stage(name, inputs, encode, source.load)

    @cache
    def prepare() -> tuple[Decoder, Tokens]:
        decoder, _ = source.load()
        return decoder, tokenize_pool(texts, pool.places, source)

    def decode(mapper: Mapper) -> Arrays:
        return {"embeddings": embed_with_decoder(*prepare(), mapper=mapper)}

    return Stage(name, inputs, decode, prepare)


def load_array(path: Path, what: str) -> np.ndarray:
    """A .npy file of floats.

    Raises:
        InputError: As `read_npy`; or other numbers.
    """
    array = read_npy(path, what, "floats")
    if array.dtype.kind != "f":
        raise InputError(f"{path}: the {what} must be one array of floats.")
    return array


def read_npy(path: Path, what: str, kind: str) -> np.ndarray:
    """One array of a .npy file, memory-mapped and never unpickled.

    Raises:
        InputError: The file is missing, not a .npy file, or holds Python objects.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path.") from None
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a .npy file of numbers or strings ({error}): write the "
            f"{what} with numpy.save, as an array of {kind}."
        ) from None
    return array
