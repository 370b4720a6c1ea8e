"""Ctrl-C and SIGTERM that let a search write the best subset so far."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from goracs_jax.errors import Interrupted
from goracs_jax.runs.say import stderr

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """What the user asked for by a signal; the first asks, the second ends at once.

    A program of XLA holds the interpreter up, and with it every handler of Python. A
    thread hears of signals all the same, through a pipe.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def asked(self) -> bool:
        """Tell whether a signal came.

        >>> Stopping().asked()
        False
        """
        return self.signal is not None

    def check(self) -> None:
        """Leave the verb if a signal came.

        Raises:
            Interrupted: With the signal's exit code.
        """
        if self.signal is not None:
            raise Interrupted(self.signal)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals as questions to stop, where they otherwise end the process.

        >>> stop = Stopping()
        >>> with stop.listening():
        ...     signal.raise_signal(signal.SIGINT)
        ...     while not stop.asked():
        ...         pass
        >>> stop.signal == signal.SIGINT
        True
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may take signals
            return
        heard, told = os.pipe()
        os.set_blocking(told, False)
        listener = threading.Thread(target=self._listen, args=[heard], daemon=True)
        earlier = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        handlers = {name: signal.signal(name, _leave_it) for name in SIGNALS}
        listener.start()
        try:
            yield
        finally:
            for name, handler in handlers.items():
                signal.signal(name, handler)
            signal.set_wakeup_fd(earlier)
            os.close(told)  # ends the listener
            listener.join()
            os.close(heard)

    def _listen(self, heard: int) -> None:
        while number := os.read(heard, 1):
            if number[0] not in SIGNALS:
                continue
            if self.asked():
                stderr.show_cursor()
                os._exit(128 + number[0])
            self.signal = number[0]
            stderr.print(
                "stopping: the best subset so far is written after the present step; "
                "once more ends at once"
            )


def _leave_it(*_: object) -> None:
    """Do nothing: the listener acts, and a handler of Python must exist for it."""
