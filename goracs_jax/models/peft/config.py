"""Read an adapter_config.json of PEFT as a `LoraConfig`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from goracs_jax.buckets import as_path
from goracs_jax.errors import InputError, located
from goracs_jax.models.fields import FLOATS, KINDS, Fields
from goracs_jax.models.folder import read_json
from goracs_jax.models.lora_config import LoraConfig
from goracs_jax.models.peft.fields import MERGE, check_fields
from goracs_jax.models.targets import (
    LINEAR_NAMES,
    STORED_NAMES,
    TABLES,
    Rules,
    full_name,
)

#: Parts of a decoder, besides its linear layers, that PEFT could train as a whole.
OTHER_MODULES = [
    "model",
    "model.norm",
    "model.layers",
    "model.layers.0",
    "model.layers.0.self_attn",
    "model.layers.0.self_attn.q_norm",
    "model.layers.0.self_attn.k_norm",
    "model.layers.0.mlp",
    "model.layers.0.input_layernorm",
    "model.layers.0.post_attention_layernorm",
    "model.layers.0.pre_feedforward_layernorm",
    "model.layers.0.post_feedforward_layernorm",
]


def read_lora_config(folder: str | Path) -> LoraConfig:
    """Read rank, scale, targets, dropout and variants from an adapter_config.json.

    Args:
        folder: The PEFT folder.

    Returns:
        The configuration to give to `load_decoder` before `load_adapter`.

    Raises:
        InputError: The file is missing, has a wrong value, or describes an adapter that
            is not supported.
    """
    raw, where = read_json(as_path(folder) / "adapter_config.json")
    check_fields(raw, where)
    fields = AdapterFields(raw, where)
    tables = fields.saved_tables()
    tokens = fields.trained_tokens()
    rules = fields.rules()
    names = rules.targets
    plain = not isinstance(names, str) and set(names) <= set(LINEAR_NAMES)
    plain = plain and rules == Rules(targets=names)
    r = fields.number("r", int, 8)
    alpha = fields.number("lora_alpha", float, 8.0)
    dropout = fields.number("lora_dropout", float, 0.0)
    flag = lambda name: fields.typed(name, bool, default=False)
    rslora, dora, bias = flag("use_rslora"), flag("use_dora"), flag("lora_bias")
    return LoraConfig(
        r=r,
        alpha=alpha,
        dropout=dropout,
        tables=tables,
        tokens=tokens,
        rslora=rslora,
        dora=dora,
        bias=bias,
        targets=tuple(names) if plain else LINEAR_NAMES,
        rules=None if plain else rules,
        where=where,
    )


class AdapterFields(Fields):
    """The fields of an adapter_config.json, each checked when it is read."""

    def rules(self) -> Rules:
        """Return which linear layers have an adapter, with which ranks and scales.

        Raises:
            InputError: A value is of a wrong kind, no name is one of a linear layer, or
                a table of the vocabulary is among the targets.
        """
        targets = self._names("target_modules")
        if not targets:
            raise self.wrong(
                "target_modules", "must name layers, such as q_proj and v_proj"
            )
        alphas = self._pattern("alpha_pattern", self._is_number)
        with located(self.where):
            rules = Rules(
                targets=targets,
                exclude=self._names("exclude_modules"),
                layers=self._integers("layers_to_transform"),
                layers_pattern=self._list("layers_pattern", str),
                ranks=self._pattern("rank_pattern", self._is_integer),
                alphas=tuple((p, float(x)) for p, x in alphas),
                saved=self._list("modules_to_save", str),
            )
        if isinstance(targets, tuple):
            lasts = {name.rpartition(".")[2] for name in targets}
            if not lasts & {
                *STORED_NAMES,
                *(x.rpartition(".")[2] for x in TABLES.values()),
            }:
                raise InputError(
                    f"{self.where}: LoRA target modules must be among "
                    f"{', '.join(LINEAR_NAMES)}, got {', '.join(targets)}: "
                    "give the file that PEFT saved with the adapter."
                )
        for name in TABLES.values():
            if rules.match(name):
                raise InputError(
                    f"{self.where}: target_modules names {name}: adapters of the "
                    f"vocabulary are not supported: put it into modules_to_save, or "
                    f"{MERGE}."
                )
        return rules

    def saved_tables(self) -> tuple[str, ...]:
        """Return the tables of modules_to_save, by our names.

        As in PEFT, a name is that of every module that it is the end of.

        Raises:
            InputError: A name is that of another part of a decoder.
        """
        names = self._list("modules_to_save", str)
        other = [full_name(name, 0) for name in STORED_NAMES] + OTHER_MODULES
        for name in names:
            if found := [module for module in other if module.endswith(name)]:
                raise InputError(
                    f"{self.where}: modules_to_save {name!r} (module {found[0]}) is "
                    f"not supported, only lm_head and embed_tokens are: {MERGE}."
                )
        return tuple(
            ours for ours, module in TABLES.items() if module.endswith(names or (";",))
        )

    def trained_tokens(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return the tables of which single rows are trained, and their tokens.

        Raises:
            InputError: It is not a list of tokens, or lists by name of a table.
        """
        value = self.raw.get("trainable_token_indices")
        if not value:
            return ()
        by_name = value if isinstance(value, dict) else {"embed_tokens": value}
        found = {}
        for name, tokens in by_name.items():
            ours = [t for t, module in TABLES.items() if module.endswith(name)]
            right = isinstance(tokens, list) and all(
                self._is_integer(token) and token >= 0 for token in tokens
            )
            if len(ours) != 1 or not right:
                raise self.wrong(
                    "trainable_token_indices",
                    "must be a list of tokens, of embed_tokens or of lm_head",
                )
            found[ours[0]] = tuple(tokens)
        return tuple(sorted(found.items()))

    def number(self, name: str, kind: type, default: int | float) -> Any:
        """Return a number, which may be missing but not null."""
        if self.raw.get(name, default) is None:
            raise self.wrong(name, f"must be {KINDS[kind]}")
        return self.typed(name, kind, default)

    def wrong(self, name: str, rule: str) -> InputError:
        """Return the error for a field whose value is wrong."""
        value = self.raw.get(name)
        return InputError(f"{self.where}: {name} {rule}, got {value!r}: correct it.")

    def _names(self, name: str) -> tuple[str, ...] | str:
        value = self.raw.get(name)
        return value if isinstance(value, str) else self._list(name, str)

    def _list(self, name: str, kind: type) -> tuple[Any, ...]:
        value = self.raw.get(name)
        items = [value] if isinstance(value, kind) and value else value or []
        if not isinstance(items, list) or not all(isinstance(x, kind) for x in items):
            raise self.wrong(name, "must be a list of names")
        return tuple(items) if name == "layers_pattern" else tuple(sorted(set(items)))

    def _integers(self, name: str) -> tuple[int, ...]:
        value = self.raw.get(name)
        items = value if isinstance(value, list) else [] if value is None else [value]
        if not all(map(self._is_integer, items)):
            raise self.wrong(name, "must be a list of numbers of layers")
        return tuple(sorted(set(items)))

    def _pattern(
        self, name: str, right: Callable[[Any], bool]
    ) -> tuple[tuple[str, Any], ...]:
        value = self.raw.get(name) or {}
        if not isinstance(value, dict) or not all(map(right, value.values())):
            raise self.wrong(name, "must map names of layers to finite numbers")
        return tuple(value.items())

    @staticmethod
    def _is_integer(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    @staticmethod
    def _is_number(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) <= FLOATS[1]
