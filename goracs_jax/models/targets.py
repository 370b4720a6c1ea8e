"""Which linear layers of a decoder have an adapter, by the rules of PEFT."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from goracs_jax.errors import InputError

#: The linear layers of a decoder that can carry an adapter, and their blocks in the
#: names of Hugging Face.
BLOCKS = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}
LINEAR_NAMES = tuple(BLOCKS)

#: Layers that some families store as one, by the name of the whole, in the order of
#: their rows; and the whole that each belongs to.
FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
WHOLE = {part: whole for whole, parts in FUSED.items() for part in parts}
#: All names of linear layers that an adapter's file may have.
STORED_NAMES = (*LINEAR_NAMES, *FUSED)

#: The tables of a vocabulary, which can be trained as well, by our names.
TABLES = {"embed": "model.embed_tokens", "head": "lm_head"}

#: What PEFT takes for the names of all linear layers but the output head.
ALL_LINEAR = "all-linear"

V = TypeVar("V")


class Site(NamedTuple):
    """One linear layer with an adapter, its rank, and the numerator of its scale."""

    name: str
    layer: int
    r: int
    alpha: float

    @property
    def full_name(self) -> str:
        """The name of the linear layer in a Hugging Face model."""
        return full_name(self.name, self.layer)


def full_name(name: str, layer: int | str) -> str:
    """Return the name of a linear layer in a Hugging Face model.

    >>> full_name("q_proj", 3)
    'model.layers.3.self_attn.q_proj'
    """
    block = BLOCKS[FUSED.get(name, (name,))[0]]
    return f"model.layers.{layer}.{block}.{name}"


def last_layers(name: str, num_layers: int) -> tuple[int, ...]:
    """Read the name of the last layers, last:K, as their numbers from 0.

    Args:
        name: "last:" and how many.
        num_layers: The number of layers of the model.

    Raises:
        InputError: It is another name, or the model has fewer layers.

    >>> last_layers("last:2", 30)
    (28, 29)
    """
    start, _, count = name.partition(":")
    k = int(count) if count.isdecimal() else 0
    if start != "last" or not 1 <= k <= num_layers:
        raise InputError(
            f"--layers must be last:K with K from 1 to {num_layers}, the number of "
            f"layers of the model, got {name!r}."
        )
    return tuple(range(num_layers - k, num_layers))


@dataclass(frozen=True, kw_only=True)
class Rules:
    r"""PEFT's rules for the adapters of a model, which its number of layers resolves.

    Args:
        targets: Names or ends of names of linear layers, "all-linear", or a regular
            expression for whole names.
        exclude: The same for layers without an adapter, which wins.
        layers: Numbers of the layers whose names may match by their end; all if empty.
        layers_pattern: Names of the list of layers, to find these numbers.
        ranks: Regular expressions for the end of a name, and ranks. The first counts.
        alphas: The same for the numerators of the scale.
        saved: Regular expressions for parts of names of modules that are trained whole,
            which have no adapter.

    Raises:
        InputError: A regular expression is none where it is used.

    >>> rules = Rules(targets=r".*\.1\..*\.[qv]_proj", ranks=(("v_proj", 2),))
    >>> [(site.full_name, site.r) for site in rules.sites(2, r=8, alpha=16.0)]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('model.layers.1.self_attn.q_proj', 8),
     ('model.layers.1.self_attn.v_proj', 2)]
    """

    targets: tuple[str, ...] | str
    exclude: tuple[str, ...] | str = ()
    layers: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    ranks: tuple[tuple[str, int], ...] = ()
    alphas: tuple[tuple[str, float], ...] = ()
    saved: tuple[str, ...] = ()

    def __post_init__(self):
        whole = lambda wanted: [wanted] if isinstance(wanted, str) else []
        used = {
            "target_modules": [(p, p) for p in whole(self.targets)],
            "exclude_modules": [(p, p) for p in whole(self.exclude)],
            "modules_to_save": [(p, _part(p)) for p in self.saved],
            "layers_pattern": [(p, self._list_of(p)) for p in self.layers_pattern],
            "rank_pattern": [(p, _end(p)) for p, _ in self.ranks],
            "alpha_pattern": [(p, _end(p)) for p, _ in self.alphas],
        }
        for name, patterns in used.items():
            for shown, pattern in patterns:
                try:
                    re.compile(pattern)
                except (re.error, OverflowError, RecursionError) as error:
                    raise InputError(
                        f"{name} must be a regular expression ({error}), got "
                        f"{shown!r}: correct it."
                    ) from None

    def sites(
        self, num_layers: int, r: int, alpha: float, *, fused: bool = False
    ) -> tuple[Site, ...]:
        """List the linear layers that have an adapter.

        Args:
            num_layers: The number of layers of the model.
            r: The rank where no pattern matches.
            alpha: The numerator of the scale where no pattern matches.
            fused: Whether the file names the wholes of `FUSED`, not their parts.

        Raises:
            InputError: There is none.
        """
        found = [
            Site(name, layer, find(self.ranks, key, r), find(self.alphas, key, alpha))
            for layer in range(num_layers)
            for name in LINEAR_NAMES
            for key in [full_name(WHOLE.get(name, name) if fused else name, layer)]
            if self.match(key)
        ]
        if not found:
            chosen = f" in layers {', '.join(map(str, self.layers))}"
            raise InputError(
                f"LoRA target modules {_shown(self.targets)}"
                f"{chosen if self.layers else ''} match no linear layer of "
                f"{num_layers} layers, numbered from 0: name layers such as q_proj or "
                f"{full_name('q_proj', 0)}, that are not excluded."
            )
        return tuple(found)

    def match(self, key: str) -> bool:
        """Tell whether the module of this name has an adapter."""
        if _named(self.exclude, key):
            return False
        if any(re.match(_part(pattern), key) for pattern in self.saved):
            return False
        if isinstance(self.targets, str):
            if self.targets.lower() == ALL_LINEAR:
                return key.rpartition(".")[2] in STORED_NAMES
            return _named(self.targets, key)
        # A name in full is meant, whatever `layers` says.
        by_end = _named(self.targets, key) and key not in self.targets
        if not self.layers or not by_end:
            return _named(self.targets, key)
        patterns = self.layers_pattern or (r"[^.]*",)
        matches = (re.match(self._list_of(pattern), key) for pattern in patterns)
        number = next((int(found["layer"]) for found in matches if found), None)
        return number in self.layers

    def _list_of(self, pattern: str) -> str:
        """Return an expression for the name of a list of layers and a number in it."""
        # With a pattern, the list may be the first part of the name.
        start = r"(?:^|.*?\.)" if self.layers_pattern else r".*?\."
        return rf"{start}{pattern}\.(?P<layer>\d+)\."


def _part(pattern: str) -> str:
    """Return an expression for the names of a module and of all that is in it."""
    return rf"(^|.*\.){pattern}($|\..*)"


def _end(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _named(wanted: tuple[str, ...] | str, key: str) -> bool:
    """Tell whether names, ends of names or one regular expression match a name."""
    if isinstance(wanted, str):
        return bool(wanted) and re.fullmatch(wanted, key) is not None
    return any(key == name or key.endswith(f".{name}") for name in wanted)


def find(patterns: Sequence[tuple[str, V]], key: str, default: V) -> V:
    """Return the value of the first pattern that matches the end of a name.

    >>> find([(r"layers.1..*", 2)], "model.layers.1.self_attn.q_proj", 8)
    2
    """
    matching = (v for p, v in patterns if re.match(_end(p), key))
    return next(matching, default)


def _shown(names: Sequence[str] | str) -> str:
    return repr(names) if isinstance(names, str) else ", ".join(names)
