"""Models that are named as on the hub, before a verb runs."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from goracs_jax.errors import InputError
from goracs_jax.models.hub import fetch_model, is_hub_name
from goracs_jax.runs.say import say
from goracs_jax.settings import Hub, Plan
from goracs_jax.settings.paths import check_present

S = TypeVar("S", bound=Hub)


def with_models(settings: S) -> S:
    """Return the settings of a verb with folders for all models.

    Args:
        settings: The flags, of which --model and --encoder may be names on the hub.

    Raises:
        InputError: A model cannot be fetched, --revision is given for one that is not
            on the hub, or another input is not there.
    """
    named = {
        name: path
        for name in ("model", "encoder")
        if isinstance(path := getattr(settings, name, None), Path) and is_hub_name(path)
    }
    if settings.revision is not None and "model" not in named:
        model = getattr(settings, "model", None)
        raise InputError(
            f"--revision {settings.revision} is of a --model on the hub, and "
            f"{f'{model} is here' if model else 'there is no --model'}: leave it out."
        )
    if named:
        check_present(settings, named)
    found = {}
    for name, path in named.items():
        revision = settings.revision if name == "model" else None
        # Sizes alone need no weights.
        files = "config" if isinstance(settings, Plan) else "all"
        found[name] = fetch_model(str(path), revision, files=files)
        say(f"{name} {path}: revision {found[name].name}")
    return replace(settings, **found) if found else settings
