"""The template of a file of records: that of --template, or the one of their form."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from goracs_jax.buckets import as_path
from goracs_jax.errors import InputError, one_line
from goracs_jax.files import digest, existing_file
from goracs_jax.llm.chat_template import ChatTemplate
from goracs_jax.llm.conversations import Form, is_chat
from goracs_jax.llm.templates import ALPACA, Contents, Plain, Template
from goracs_jax.llm.tokenization import end_of_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TemplateChoice(NamedTuple):
    """What --template says, and the text of its file if it names one."""

    name: str | None = None
    source: str | None = None

    @classmethod
    def read(cls, name: str | None) -> "TemplateChoice":
        """Read the file of a chat template, unless the name is alpaca or chat.

        It may be JSON that has the template as its `chat_template`, as
        tokenizer_config.json does and chat_template.json of models that read pictures.

        Raises:
            InputError: There is no such file, or it is no template of Jinja.
        """
        if name in (None, "alpaca", "chat"):
            return cls(name)
        path = existing_file(as_path(name))
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"--template {path}: cannot be read as UTF-8 ({one_line(error)}): give "
                "alpaca, chat, or a file with a chat template in Jinja."
            ) from None
        source = _unwrapped(source, path)
        _check_syntax(source, path)
        return cls(name, source)

    @property
    def identity(self) -> dict[str, str]:
        """What names the results that depend on it; nothing without --template."""
        found = digest(self.source) if self.source is not None else self.name
        return {} if found is None else {"template": found}

    def of(self, form: Form, tokenizer: "PreTrainedTokenizerFast") -> Template:
        """Return the template of records of a form, for a model's tokenizer.

        Raises:
            InputError: The tokenizer has no end of text, which plain prompts need.
        """
        if self.name == "alpaca" or (self.name is None and form == "alpaca"):
            return ALPACA
        if self.name is None and not is_chat(form):
            end_of_text(tokenizer)
            return Plain(str(tokenizer.eos_token))
        return ChatTemplate(tokenizer, self.source)


def encoder_template(form: Form) -> Template:
    """Return what a sentence encoder reads: no control tokens of a language model."""
    return ALPACA if form == "alpaca" else Contents()


def _unwrapped(source: str, path: Path) -> str:
    """Take a template out of an object of JSON; Jinja would write the rest as text."""
    try:
        raw = json.loads(source)
    except (ValueError, RecursionError):
        return source
    found = raw.get("chat_template") if isinstance(raw, dict) else None
    if not isinstance(found, str):
        raise InputError(
            f"--template {path}: JSON without a text called chat_template: give a "
            "file with a chat template in Jinja."
        )
    return found


def _check_syntax(source: str, path: Path) -> None:
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    if not source.strip():
        raise InputError(f"--template {path} is empty: give a chat template in Jinja.")
    try:
        render_jinja_template(conversations=[[]], chat_template=source)
    except TemplateSyntaxError as error:
        raise InputError(
            f"--template {path}: no chat template in Jinja (line {error.lineno}: "
            f"{one_line(error)}): correct it."
        ) from None
    except Exception:  # noqa: BLE001 (it needs messages)
        pass
