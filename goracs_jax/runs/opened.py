"""The one place that opens pools of examples, LLMs and sentence encoders."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp

from goracs_jax.choices import Remat
from goracs_jax.data.examples import Example, each_example
from goracs_jax.data.skipped import Skipped
from goracs_jax.data.stored import Places, Some, Stored
from goracs_jax.errors import InputError
from goracs_jax.files import digest, hash_files
from goracs_jax.inputs.parts import hash_input
from goracs_jax.llm.conversations import Form
from goracs_jax.llm.profile import default_dtype, execution_on
from goracs_jax.llm.template_choice import TemplateChoice
from goracs_jax.llm.templates import Template
from goracs_jax.llm.tokenization import load_tokenizer
from goracs_jax.mesh import Devices, model_mesh
from goracs_jax.models import (
    Decoder,
    DecoderConfig,
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

    Where examples were left out or cut, the hash is of what is left; where keys were
    named, it is that of the names, too.
    """

    examples: Sequence[Example]
    sha256: str
    path: Path
    kept: Kept | None = None  # rows of the file; None if they are all
    skipped: Skipped | None = None  # those that were left out
    uncut: Sequence[Example] | None = None  # as in the file, if some were cut

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
            examples=Some(self.examples, kept.rows),
            sha256=digest({"pool": self.sha256, "rows": kept.rows.tolist()}),
            kept=self.of_file.then(kept),
            uncut=self.uncut and Some(self.uncut, kept.rows),
        )

    def whole(self, row: int) -> dict:
        """Return the record of an example as it is in the file, not cut."""
        return (self.uncut or self.examples)[row].record

    @property
    def form(self) -> Form:
        """The form of the examples, which is one."""
        return self.examples[0].form

    @property
    def places(self) -> Sequence[str]:
        """The file and line of each example, for messages."""
        return Places(self.examples)

    @property
    def outputs(self) -> list[str]:
        """The output of each example."""
        return [example.output for example in self.examples]


class Llm(NamedTuple):
    """A decoder on disk, which is loaded on first use, and its identity in stages.

    A fresh adapter has B = 0, so its seed decides gradients and nothing else.
    """

    decoder: Callable[[], Decoder]
    tokenizer: Callable[[], "PreTrainedTokenizerFast"]
    identity: dict[str, str]
    seed: int | None  # None where an adapter is given
    config: Callable[[], DecoderConfig]  # which no weights are read for
    choice: TemplateChoice = TemplateChoice()

    def load(self) -> tuple[Decoder, "PreTrainedTokenizerFast"]:
        """Return the model and its tokenizer."""
        return self.decoder(), self.tokenizer()

    def template(self, form: Form) -> Template:
        """Return the template that writes examples of a form for this model."""
        return self.choice.of(form, self.tokenizer())


class SentenceEncoder(NamedTuple):
    """A sentence encoder on disk, which is loaded on first use, and its identity."""

    load: Callable[[], tuple[Encoder, "PreTrainedTokenizerFast"]]
    identity: dict[str, str]


def read_pool(path: Path, columns: Sequence[str] | None = None) -> Pool:
    """Read and check a file of examples.

    Args:
        path: The file, as for `goracs_jax.data.examples.read_examples`.
        columns: What it calls the parts of its records; likewise.

    Raises:
        InputError: The first thing that is wrong, with its file and line.
    """
    examples = Stored(each_example(path, columns=columns))
    return Pool(examples, hash_pool(path, columns), path)


def hash_pool(path: Path, columns: Sequence[str] | None) -> str:
    """Return the SHA-256 of a file of examples and of what it calls their parts."""
    sha256 = hash_input(path)
    if not columns:
        return sha256
    return digest({"file": sha256, "columns": sorted(columns)})


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
    template: str | None = None,
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
        template: "alpaca", "chat", or the file of a chat template; by default the
            records decide.

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

    shape = lora or (read_lora_config(adapter) if adapter else LoraConfig())
    config = cache(lambda: decoder_config(model))
    # Before a large model is read, be it for its hash.
    if model.is_dir():
        config()
    if adapter:
        check_adapter(config(), shape, adapter)

    @cache
    def decoder() -> Decoder:
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

    choice = TemplateChoice.read(template)
    identity = {"model": hash_model(model), "dtype": dtype, **choice.identity}
    if adapter:
        identity["adapter"] = hash_model(adapter)
    tokenizer = cache(lambda: load_tokenizer(model))
    drawn = None if adapter else seed
    return Llm(decoder, tokenizer, identity, drawn, config, choice)


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
    template: str | None,
) -> tuple[Llm | None, Llm | SentenceEncoder]:
    """Open the models that score examples, as many as are given.

    Args:
        model: As for `open_llm`.
        encoder: The folder of a sentence encoder.
        adapter: As for `open_llm`.
        seed: As for `open_llm`.
        machine: As for `open_llm`.
        template: As for `open_llm`.

    Returns:
        The LLM, if it is given, and what embeds: the encoder, or else the LLM.

    Raises:
        InputError: There is no such model, or none is given.
    """
    llm = None
    if model:
        llm = open_llm(model, adapter, seed, machine, template=template)
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
        raise InputError(
            f"{path} does not exist: check the path, or name a model on the hub as "
            "organisation/model."
        )
    parts = [
        part
        for name in part_names(path.name)
        if (part := path.with_name(name)).is_file()
    ]
    if len(parts) > 1:
        return digest({part.name: hash_files(part) for part in parts})
    return hash_files(path)
