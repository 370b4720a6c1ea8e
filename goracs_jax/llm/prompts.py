"""The prompts: all the text that a language model reads.

An example is a record of three strings in the Alpaca form: an instruction, an input
that it applies to (it may be empty), and the output to learn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from string import Formatter
from typing import NamedTuple

from goracs_jax.choices import Task as Task
from goracs_jax.errors import InputError
from goracs_jax.files import read_mapping


class Prompt(NamedTuple):
    """The text that the model reads, and the text that it should answer."""

    prompt: str
    answer: str


def format_prompt(record: Mapping[str, str]) -> Prompt:
    r"""Write one record as the text of a prompt and an answer.

    Args:
        record: A dict with the keys instruction, output and optionally input.

    Returns:
        Prompt and answer. The full text is the one followed by the other.

    >>> format_prompt({"instruction": "Add.", "input": "1 2", "output": "3"}).prompt
    '### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n'
    """
    parts = [f"### Instruction:\n{record['instruction']}\n"]
    if record.get("input"):
        parts.append(f"### Input:\n{record['input']}\n")
    parts.append("### Response:\n")
    return Prompt("\n".join(parts), record["output"])


@dataclass(frozen=True, kw_only=True)
class Template:
    """The wording of a task's examples, with names in braces for what changes.

    Every task has {noun} (what an item is called), {history} (titles, oldest first) and
    {target} (the title that follows). ctr also has {liked} and {disliked} (the history
    by rating) and {answer} (Yes or No).
    """

    instruction: str
    input: str
    output: str
    quote: str = '"'
    """The text on both sides of a title. Generation ends at the closing one."""
    separator: str = ", "
    """The text between the titles of a list."""
    empty: str = "none"
    """The text in place of a list without titles."""


TEMPLATES: dict[Task, Template] = {
    "seqrec": Template(
        instruction=(
            "Here are the {noun}s a user has chosen, oldest first. "
            "Name the {noun} the user will choose next."
        ),
        input="{history}",
        output="{target}",
    ),
    "ctr": Template(
        instruction=(
            "Here are {noun}s a user liked and {noun}s the user disliked, oldest "
            "first. Will the user like one more {noun}? Answer Yes or No."
        ),
        input="Liked: {liked}\nDisliked: {disliked}\nOne more: {target}",
        output="{answer}",
    ),
}


def seqrec_record(
    history: Sequence[str],
    target: str,
    noun: str = "movie",
    template: Template = TEMPLATES["seqrec"],
) -> dict:
    """Write an example of next-item prediction.

    Args:
        history: Titles the user has chosen, oldest first.
        target: The title chosen next.
        noun: What an item is called.
        template: The wording.

    Returns:
        An Alpaca record.

    >>> seqrec_record(["Heat", "Fargo"], "Alien")["input"]
    '"Heat", "Fargo"'
    """
    return _filled(
        template,
        noun=noun,
        history=_listed(template, history),
        target=_listed(template, [target]),
    )


def ctr_record(
    history: Sequence[tuple[str, bool]],
    target: tuple[str, bool],
    noun: str = "movie",
    template: Template = TEMPLATES["ctr"],
) -> dict:
    r"""Write an example of click-through prediction: will the user like this title?

    Args:
        history: Titles and whether the user liked them, oldest first.
        target: The title in question, and whether the user liked it.
        noun: What an item is called.
        template: The wording.

    Returns:
        An Alpaca record.

    >>> record = ctr_record([("Heat", True), ("Fargo", True)], ("Alien", False))
    >>> record["input"], record["output"]
    ('Liked: "Heat", "Fargo"\nDisliked: none\nOne more: "Alien"', 'No')
    """
    title, likes = target
    return _filled(
        template,
        noun=noun,
        history=_listed(template, [title for title, _ in history]),
        liked=_listed(template, [title for title, liked in history if liked]),
        disliked=_listed(template, [title for title, liked in history if not liked]),
        target=_listed(template, [title]),
        answer="Yes" if likes else "No",
    )


def read_template(path: Path, task: Task) -> Template:
    """Read the user's own template from YAML or JSON with the fields of `Template`.

    Raises:
        InputError: The file cannot be read, or it is no template for this task: a field
            is missing, unknown or not a string, a name in braces is unknown, or the
            prompt gives away what the model is to learn.
    """
    values = read_mapping(path, "--template")
    known = {field.name for field in fields(Template)}
    needed = {"instruction", "input", "output"}
    for what, names in (
        ("unknown", values.keys() - known),
        ("missing", needed - values.keys()),
    ):
        if names:
            raise InputError(
                f"--template {path}: {what}: {', '.join(sorted(map(str, names)))}; a "
                f"template has {', '.join(sorted(needed))}, and may have "
                f"{', '.join(sorted(known - needed))}."
            )
    for name, text in values.items():
        if not isinstance(text, str):
            raise InputError(f"--template {path}: {name} must be a string: quote it.")
        if "\0" in text or text.encode(errors="ignore").decode() != text:
            raise InputError(
                f"--template {path}: {name} has NUL or half of a surrogate pair, which "
                "is no text: take it out."
            )
    template = Template(**values)
    try:
        _check(template, task)
    except ValueError as error:
        raise InputError(f"--template {path}: {error}") from None
    return template


def _check(template: Template, task: Task) -> None:
    allowed = {"noun", "history", "target"}
    past, learnt = {"history"}, "target"
    if task == "ctr":
        past |= {"liked", "disliked"}
        allowed, learnt = allowed | past | {"answer"}, "answer"
    prompt = _names("instruction", template.instruction, allowed)
    prompt |= _names("input", template.input, allowed)
    output = _names("output", template.output, allowed)
    if learnt in prompt:
        raise ValueError(
            f"{{{learnt}}} is what the model is to learn: use it in output only."
        )
    if learnt not in output:
        raise ValueError(
            f"output needs {{{learnt}}}: it is what the model is to learn."
        )
    if not prompt & past:
        raise ValueError(f"the prompt needs {_braced(past, ' or ')}.")
    if task == "ctr" and "target" not in prompt:
        raise ValueError("the prompt needs {target}, the title that is asked for.")


def _names(field: str, text: str, allowed: set[str]) -> set[str]:
    """Find the names in braces, and refuse indices, conversions and formats of them."""
    found = set()
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(
            f"{field}: {error}: write {{{{ and }}}} for plain braces."
        ) from None
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if name not in allowed or form or conversion:
            raise ValueError(
                f"{field}: {{{name}}} is unknown: there is {_braced(allowed, ', ')}."
            )
        found.add(name)
    return found


def _braced(names: set[str], joint: str) -> str:
    return joint.join(f"{{{name}}}" for name in sorted(names))


def _listed(template: Template, titles: Sequence[str]) -> str:
    quote, separator = template.quote, template.separator
    if not titles:
        return template.empty
    return f"{quote}{f'{quote}{separator}{quote}'.join(titles)}{quote}"


def _filled(template: Template, **values: str) -> dict:
    return {
        "instruction": template.instruction.format(**values),
        "input": template.input.format(**values),
        "output": template.output.format(**values),
    }
