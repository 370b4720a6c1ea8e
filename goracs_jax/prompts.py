"""All text that a model is shown, and nothing else.

An example is a record of three strings, the Alpaca form: an instruction, an input that
it applies to (may be empty) and the output to learn.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Prompt(NamedTuple):
    """What the model reads and what it should answer."""

    prompt: str
    answer: str


def format_prompt(record: Mapping[str, str]) -> Prompt:
    r"""The text of one record under the instruction template.

    Args:
        record: With keys instruction and output, and optionally input.

    Returns:
        Prompt and answer; the full text is one after the other.

    >>> format_prompt({"instruction": "Add.", "input": "1 2", "output": "3"}).prompt
    '### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n'
    """
    parts = [f"### Instruction:\n{record['instruction']}\n"]
    if record.get("input"):
        parts.append(f"### Input:\n{record['input']}\n")
    parts.append("### Response:\n")
    return Prompt("\n".join(parts), record["output"])


def seqrec_record(history: Sequence[str], target: str, noun: str = "movie") -> dict:
    """A next-item example: the titles of a history, oldest first, and the next title.

    Args:
        history: Titles the user has chosen, oldest first.
        target: The title chosen next.
        noun: What an item is called.

    Returns:
        An Alpaca record. Titles are quoted, so that the closing quote ends an answer.

    >>> seqrec_record(["Heat", "Fargo"], "Alien")["input"]
    '"Heat", "Fargo"'
    """
    return {
        "instruction": (
            f"Here are the {noun}s a user has chosen, oldest first. "
            f"Name the {noun} the user will choose next."
        ),
        "input": ", ".join(f'"{title}"' for title in history),
        "output": f'"{target}"',
    }
