"""Ctrl-C in a collection of garbage, where JAX's callback would swallow it."""

import gc
import signal
import time

import pytest

from goracs_jax.interrupt import interruptible


@pytest.fixture
def pressed_in_a_collection():
    """Ctrl-C comes in the first collection, in a callback of the name of JAX's."""
    pressed = []

    def _xla_gc_callback(*_):
        if not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(_xla_gc_callback)
    yield pressed
    gc.callbacks.remove(_xla_gc_callback)


def test_an_interrupt_in_a_collection_arrives(pressed_in_a_collection):
    def work():
        gc.collect()
        assert pressed_in_a_collection  # and nothing was raised there
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt), interruptible():
        work()


def test_an_interrupt_elsewhere_arrives_at_once():
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)


def test_the_handler_from_before_comes_back():
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
