"""The one place that opens pools of examples, LLMs and sentence encoders."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp

from goracs_jax.choices import Remat
from goracs_jax.data.examples import Example, read_examples
from goracs_jax.data.skipped import Skipped
from goracs_jax.errors import InputError
from goracs_jax.files import digest, hash_files
from goracs_jax.inputs.parts import hash_input
from goracs_jax.llm.profile import default_dtype, execution_on
from goracs_jax.llm.prompts import Prompt, format_prompt
from goracs_jax.llm.tokens import Scored, Tokens, load_tokenizer, tokenize
from goracs_jax.mesh import Devices, model_mesh
from goracs_jax.models import (
    Decoder,
    Encoder,
    LoraConfig,
    check_adapter,
    decoder_config,
    load_adapter,
    load_decoder,
    load_encoder,
    read_lora_config,
)
from goracs_jax.models.decoder import with_execution
from goracs_jax.models.gguf_file import part_names
from goracs_jax.runs.kept import Kept
from goracs_jax.settings import Machine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


MACHINE = Machine()


class Pool(NamedTuple):
    """The examples of a file, checked; the SHA-256 of the file, and its path.

    Where examples were left out or cut, the hash is of what is left.
    """

    examples: list[Example]
    sha256: str
    path: Path
    kept: Kept | None = None  # rows of the file; None if they are all
    skipped: Skipped | None = None  # those that were left out
    uncut: Mapping[str, dict] = {}

    @property
    def of_file(self) -> Kept:
        """The rows of the file that the examples are."""
        return self.kept or Kept.all(len(self.examples))

    def only(self, kept: Kept) -> "Pool":
        """Return some of the examples; the same pool if they are all.

        Args:
            kept: Which ones, as rows of this pool.
        """
        if kept.is_all:
            return self
        return self._replace(
            examples=[self.examples[row] for row in kept.rows],
            sha256=digest({"pool": self.sha256, "rows": kept.rows.tolist()}),
            kept=self.of_file.then(kept),
        )

    def whole(self, row: int) -> dict:
        """Return the record of an example as it is in the file, not cut."""
        record, place = self.examples[row]
        return self.uncut.get(place, record)

    @property
    def prompts(self) -> list[Prompt]:
        """The text of each example."""
        return [format_prompt(example.record) for example in self.examples]

    @property
    def places(self) -> list[str]:
        """The file and line of each example, for messages."""
        return [example.place for example in self.examples]

    @property
    def outputs(self) -> list[str]:
        """The output of each example."""
        return [example.record["output"] for example in self.examples]


class Llm(NamedTuple):
    """A decoder on disk, which is loaded on first use, and its identity in stages.

    A fresh adapter has B = 0, so its seed decides gradients and nothing else.
    """

    decoder: Callable[[], Decoder]
    tokenizer: Callable[[], "PreTrainedTokenizerFast"]
    identity: dict[str, str]
    seed: int | None  # None where an adapter is given

    def load(self) -> tuple[Decoder, "PreTrainedTokenizerFast"]:
        """Return the model and its tokenizer."""
        return self.decoder(), self.tokenizer()


class SentenceEncoder(NamedTuple):
    """A sentence encoder on disk, which is loaded on first use, and its identity."""

    load: Callable[[], tuple[Encoder, "PreTrainedTokenizerFast"]]
    identity: dict[str, str]


def read_pool(path: Path) -> Pool:
    """Read and check a file of examples.

    Raises:
        InputError: The first thing that is wrong, with its file and line.
    """
    return Pool(read_examples(path), hash_input(path), path)


def open_llm(
    model: Path,
    adapter: Path | None,
    seed: int,
    machine: Machine = MACHINE,
    *,
    devices: Devices | None = None,
    remat: Remat = "products",
    lora: LoraConfig | None = None,
    untrained: Literal["refuse", "warn"] = "refuse",
) -> Llm:
    """Open a decoder with the adapter of a folder, or with a fresh one.

    Args:
        model: A Hugging Face folder or a .gguf file.
        adapter: A PEFT folder; a fresh adapter when left out.
        seed: Seed of a fresh adapter.
        machine: The type of the weights, the devices for each copy of the model, and
            the tokens of a batch.
        devices: The devices to use, by default all. Where there are several, each reads
            its part of the model.
        remat: What a backward pass keeps of each layer.
        lora: Rank, scale, targets and dropout of the adapter; by default those of the
            folder, or those of the paper.
        untrained: Whether to refuse an adapter whose lora_B are all zero, or to warn.

    Raises:
        InputError: There is no such model or adapter, or the devices cannot be divided
            among copies of the model.
    """
    found_devices = jax.devices() if devices is None else devices
    mesh = model_mesh(found_devices, machine.model_devices)
    dtype = machine.dtype or default_dtype(found_devices[0])
    if machine.tokens_per_batch is not None and machine.tokens_per_batch < 1:
        raise InputError(
            f"--tokens-per-batch must be at least 1, got {machine.tokens_per_batch}."
        )

    @cache
    def decoder() -> Decoder:
        shape = lora or (read_lora_config(adapter) if adapter else LoraConfig())
        if adapter:
            check_adapter(decoder_config(model), shape, adapter)
        key = jax.random.key(seed)
        found = load_decoder(
            model,
            lora=shape,
            key=key,
            dtype=jnp.dtype(dtype),
            mesh=mesh if mesh.size > 1 else None,
        )
        found = with_execution(
            found,
            remat=remat,
            tokens=machine.tokens_per_batch,
            **execution_on(found_devices[0]),
        )
        return load_adapter(found, adapter, untrained=untrained) if adapter else found

    identity = {"model": hash_model(model), "dtype": dtype}
    if adapter:
        identity["adapter"] = hash_model(adapter)
    tokenizer = cache(lambda: load_tokenizer(model))
    return Llm(decoder, tokenizer, identity, None if adapter else seed)


def open_encoder(folder: Path) -> SentenceEncoder:
    """Open a sentence encoder.

    Raises:
        InputError: There is none.
    """

    @cache
    def load() -> tuple[Encoder, "PreTrainedTokenizerFast"]:
        return load_encoder(folder), load_tokenizer(folder)

    return SentenceEncoder(load, {"encoder": hash_model(folder)})


def open_models(
    model: Path | None,
    encoder: Path | None,
    adapter: Path | None,
    seed: int,
    machine: Machine,
) -> tuple[Llm | None, Llm | SentenceEncoder]:
    """Open the models that score examples, as many as are given.

    Args:
        model: As for `open_llm`.
        encoder: The folder of a sentence encoder.
        adapter: As for `open_llm`.
        seed: As for `open_llm`.
        machine: As for `open_llm`.

    Returns:
        The LLM, if it is given, and what embeds: the encoder, or else the LLM.

    Raises:
        InputError: There is no such model, or none is given.
    """
    llm = open_llm(model, adapter, seed, machine) if model else None
    embedder = open_encoder(encoder) if encoder else llm
    if embedder is None:
        raise InputError("give a model or an encoder.")
    return llm, embedder


def hash_model(path: Path) -> str:
    """Return the SHA-256 of a model's file or folder, or of all parts of a GGUF model.

    Raises:
        InputError: There is none.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path.")
    parts = [
        part
        for name in part_names(path.name)
        if (part := path.with_name(name)).is_file()
    ]
    if len(parts) > 1:
        return digest({part.name: hash_files(part) for part in parts})
    return hash_files(path)


def tokens_of(
    pool: Pool, llm: Llm, scored: Scored = "all"
) -> Callable[[], tuple[Decoder, Tokens]]:
    """Return a function that loads an LLM and tokenises a pool for it, once.

    Args:
        pool: The examples.
        llm: The model.
        scored: Which tokens are scored.
    """

    @cache
    def load() -> tuple[Decoder, Tokens]:
        decoder, _ = llm.load()
        return decoder, tokenize_pool(pool.prompts, pool.places, llm, scored)

    return load


def tokenize_pool(
    texts: list[Prompt], places: list[str], llm: Llm, scored: Scored = "all"
) -> Tokens:
    """Tokenise texts for an LLM.

    Args:
        texts: Prompts and answers.
        places: The name of each text in error messages.
        llm: The model, whose context bounds the length of a text.
        scored: Which tokens are scored.
    """
    decoder, tokenizer = llm.load()
    context = decoder.config.max_positions
    return tokenize(texts, tokenizer, labels=scored, context=context, places=places)
