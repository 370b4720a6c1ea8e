"""The one exception for what a user can mend."""


class InputError(ValueError):
    """A mistake in what was given: one line that says what, where and the cure.

    The command line prints the line and exits with code 2; from Python it is a
    `ValueError` like any other.

    >>> raise InputError("budget must be in [1, 10], got 0.")
    Traceback (most recent call last):
    ...
    goracs_jax.errors.InputError: budget must be in [1, 10], got 0.
    """
