"""Ctrl-C in a collection of garbage, where JAX's callback would swallow it."""

import gc
import signal
import time

import pytest

from goracs_jax.interrupt import interruptible


@pytest.fixture(autouse=True)
def python_listens():
    """A process that is started in the background is told to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_in_a_collection_arrives():
    pressed = []

    def _xla_gc_callback(*_):
        if not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    def work():
        gc.callbacks.append(_xla_gc_callback)
        gc.collect()
        assert pressed  # and nothing was raised there
        time.sleep(10)

    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            work()
    finally:
        gc.callbacks.remove(_xla_gc_callback)


def test_an_interrupt_elsewhere_arrives_at_once():
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)


def test_the_handler_from_before_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("chosen", [signal.SIG_IGN, lambda number, frame: None])
def test_what_others_chose_stays(chosen):
    signal.signal(signal.SIGINT, chosen)
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is chosen
