"""Read typed fields of raw metadata, and refuse fields that nobody read."""

from collections.abc import Collection, Mapping
from typing import Any

from goracs_jax.errors import InputError

#: No whole number of a model's configuration is larger.
LARGEST = 2**48
#: No model has more layers, whose names are listed, or wider heads, whose frequencies
#: are.
MOST_LAYERS, WIDEST_HEAD = 10_000, 2**16
#: The least and the largest normal number of float32, in which models run.
FLOATS = (1.18e-38, 3.4e38)
#: How messages call the types of fields.
KINDS = {int: "an integer", float: "a finite number", bool: "true or false"}


class Fields:
    """A reader of the fields of a dictionary, whose messages name file and field.

    Args:
        raw: The dictionary.
        where: Path of its file.
        prefix: Prefix of every name that is read and shown.

    >>> fields = Fields({"llama.block_count": 3}, "model.gguf", prefix="llama.")
    >>> fields("block_count", int)
    3
    """

    def __init__(self, raw: Mapping[str, Any], where: str, *, prefix: str = ""):
        self.raw, self.where, self.prefix = raw, where, prefix
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the raw value, or the default if it is missing or null."""
        self.read.add(self.prefix + name)
        value = self.raw.get(self.prefix + name)
        return default if value is None else value

    def __call__(
        self,
        name: str,
        kind: type,
        default: Any = None,
        *,
        positive: bool = True,
        most: int | None = None,
    ) -> Any:
        """Return the value of a field, checked for its type.

        Args:
            name: Name of the field.
            kind: Type of the value.
            default: Value if the field is missing; without a default it is required.
            positive: Whether a number must be positive; otherwise it may be 0.
            most: The largest number that is sensible.

        Raises:
            InputError: The field is missing, has another type, or is out of range.
        """
        value = self.typed(name, kind, default)
        if kind in (int, float) and (value < 0 or (value == 0 and positive)):
            shown = self._shown(name)
            raise InputError(f"{shown} must be positive, got {value!r}.")
        if most is not None and value > most:
            raise InputError(
                f"{self._shown(name)} must be at most {most}, got {value!r}: take the "
                "file that was published with the weights."
            )
        return value

    def typed(self, name: str, kind: type, default: Any = None) -> Any:
        """Return the value of a field, checked for its type; numbers have any sign.

        Args:
            name: Name of the field.
            kind: Type of the value.
            default: Value if the field is missing; without a default it is required.

        Raises:
            InputError: The field is missing, has another type, or is out of range.

        >>> Fields({"alpha": -2}, "config.json").typed("alpha", float)
        -2.0
        """
        value, shown = self.get(name, default), self._shown(name)
        if value is None:
            raise InputError(
                f"{shown} is missing: take the file that was published with the "
                "weights."
            )
        # JSON may write 10000.0 as 10000. In Python, True is an int; here it is not.
        numeric = isinstance(value, int) and not isinstance(value, bool)
        if numeric and abs(value) > LARGEST:
            raise InputError(f"{shown} is too large, got {_short(value)}.")
        if kind is float and numeric:
            value = float(value)
        if not isinstance(value, kind) or (kind is int and not numeric):
            called = KINDS.get(kind, kind.__name__)
            raise InputError(f"{shown} must be {called}, got {_short(value)}.")
        least, most = FLOATS
        if kind is float and value and not least <= abs(value) <= most:
            raise InputError(f"{shown} must be a number of float32, got {value!r}.")
        return value

    def _shown(self, name: str) -> str:
        return f"{self.where}: field {self.prefix + name!r}"

    def nullable(self, name: str, kind: type) -> Any:
        """Return the value of a field that is required but may be null."""
        if self.prefix + name in self.raw and self.get(name) is None:
            return None
        return self(name, kind)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return true or false; the field may be missing, but not null.

        Raises:
            InputError: It is something else.

        >>> Fields({}, "config.json").flag("mlp_bias")
        False
        """
        if self.raw.get(self.prefix + name, default) is None:
            raise InputError(f"{self._shown(name)} must be true or false, got null.")
        return self(name, bool, default)

    def ids(self, name: str, *, several: bool = False) -> None:
        """Check that a field is null, missing or the id of a token.

        Args:
            name: Name of the field.
            several: Whether it may be a list of ids.

        Raises:
            InputError: It is something else.

        >>> Fields({"eos_token_id": [1, 2]}, "config.json").ids("eos_token_id")
        Traceback (most recent call last):
        ...
        goracs_jax.errors.InputError: ... must be an integer, got [1, 2]: take the ...
        """
        value = self.get(name)
        ids = value if several and isinstance(value, list) else [value]
        if value is None:
            return
        if not all(type(token) is int for token in ids):  # bool is another type
            raise InputError(
                f"{self._shown(name)} must be an integer"
                f"{' or a list of integers' * several}, got {_short(value)}: take the "
                "file that was published with the weights."
            )

    def ignore(self, *names: str):
        """Mark fields as read that have no effect in the caller's case."""
        self.read.update(self.prefix + name for name in names)

    def only(
        self,
        name: str,
        supported: Collection,
        default: Any = None,
        *,
        listed: bool = False,
    ) -> Any:
        """Return the value of a field if it is one of the supported values.

        Args:
            name: Name of the field.
            supported: The values that are supported.
            default: Value if the field is missing.
            listed: Whether the value may stand in a list of one.

        Raises:
            InputError: The value is not supported.
        """
        value = self.get(name, default)
        if listed and isinstance(value, list) and len(value) == 1:
            value = value[0]
        # In Python, True equals 1 and False 0; here they do not.
        same = lambda one: (
            type(one) is type(value)
            or not (isinstance(one, bool) or isinstance(value, bool))
        )
        if not any(value == one and same(one) for one in supported):
            names = ", ".join(sorted(map(str, supported)))
            raise InputError(
                f"{self.where}: {self.prefix}{name} {_short(value)} is not supported: "
                f"use a model with {self.prefix}{name} {names}."
            )
        return value

    def divides(self, name: str, part: int, whole: int, what: str):
        """Check that a part divides a whole, which `what` describes in the message."""
        if whole % part:
            raise InputError(
                f"{self.where}: {self.prefix}{name} {part} must divide the {whole} "
                f"{what}: take the file that was published with the weights."
            )

    def nothing_else(self, harmless: Collection[str] = ()):
        """Check that all fields under the prefix were read, since others may matter.

        Args:
            harmless: Names of fields that change no result and need not be read. The
                same holds for fields that are null.

        Raises:
            InputError: A field was not read.
        """
        for name, value in self.raw.items():
            known = name in self.read or name.removeprefix(self.prefix) in harmless
            if not known and name.startswith(self.prefix) and value is not None:
                raise InputError(
                    f"{self.where}: field {name!r} ({_short(value)}) is not known and "
                    "may change what the model computes: remove it if it does not."
                )


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else text[:37] + "..."
