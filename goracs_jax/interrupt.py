"""Ctrl-C that is never lost."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

#: Seconds until an interrupt that came in a collection is sent again.
AGAIN = 0.01
#: JAX's callback of the garbage collector: Python prints and then forgets an exception
#: that is raised inside it.
LOST_IN = "_xla_gc_callback"


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C, also where JAX would swallow it.

    Only Python's own handler is replaced, for as long as the block runs. A caller's
    handler stays, and so does a Ctrl-C that the shell has told the process to ignore.
    Signals have handlers in the main thread alone; in any other nothing is changed.

    >>> with interruptible():
    ...     print("at work")
    at work
    """
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame:
        if frame.f_code.co_name == LOST_IN:
            threading.Timer(AGAIN, signal.raise_signal, (number,)).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt
