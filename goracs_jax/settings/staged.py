"""Outputs in buckets: a verb writes them on this machine, and they are sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from goracs_jax.buckets import Remote, Staged, sending
from goracs_jax.errors import InputError
from goracs_jax.settings.common import Processes, Settings
from goracs_jax.settings.flags import FlagOf, flags_of

S = TypeVar("S", bound=Settings)


@contextmanager
def staged(settings: S) -> Iterator[S]:
    """Fetch what a bucket has of the outputs, and send them when the verb has ended.

    A verb that fails or is stopped leaves there what it would leave on a disk: finished
    stages, from which the same command goes on, on any machine.

    Args:
        settings: The flags.

    Yields:
        The flags with outputs that are written on this machine.

    Raises:
        InputError: A bucket is not reached or cannot be written.
    """
    outputs = [
        (flag, value)
        for flag in flags_of(type(settings))
        if flag.flag.writes
        and isinstance(value := getattr(settings, flag.field.name), Remote)
    ]
    if not outputs:
        yield settings
        return
    if isinstance(settings, Processes) and settings.coordinator:
        flag, out = outputs[0]
        raise InputError(
            f"--{flag.name} {out}: several processes write into one folder that all of "
            "them see: name one, and copy it into the bucket afterwards."
        )
    places = list(dict.fromkeys(p for flag, out in outputs for p in _places(flag, out)))
    here = {flag.field.name: Staged(str(out)) for flag, out in outputs}
    if settings.dry_run:
        for place in places:
            place.fetch()
        yield replace(settings, **here)
        return
    Staged(str(outputs[0][1])).check()
    with sending(places):
        yield replace(settings, **here)


def _places(flag: FlagOf, out: Remote) -> Iterator[Staged]:
    """Yield an output, and what lies beside it."""
    for pattern in flag.flag.writes:
        whole = pattern.format(name=out.name, stem=out.stem)
        yield Staged(str(out.parent / whole.partition("/")[0]))
