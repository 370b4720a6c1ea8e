"""The configuration of low-rank adapters, of all the kinds that a decoder can have."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from goracs_jax.errors import InputError, located
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.targets import BLOCKS, LINEAR_NAMES, TABLES, Rules, Site

#: The fields of plain LoRA; the others are for its variants.
PLAIN = ("r", "alpha", "targets", "dropout")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Rank, scale and targets of the adapters; the defaults are those of GORACS.

    The fields after `dropout` are for variants of LoRA. `resolved` replaces `rules` by
    `sites`; a model has only these.

    Args:
        r: Rank of the update; where it varies, the largest.
        alpha: Numerator of the scale alpha / r of the update.
        targets: Names of the linear layers that have an adapter, in any layer.
        dropout: Probability that training sets an input of A to zero.
        rslora: Whether the scale is alpha / sqrt(r) (rsLoRA, Kalajdzievski, 2023).
        dora: Whether each column of W + s A B has a trained norm (DoRA, Liu et al.,
            ICML 2024).
        bias: Whether the update has a bias, s b.
        rules: Which linear layers have an adapter; None means `targets` in all layers.
        sites: These linear layers, if they differ between layers or in their scale.
        tables: Tables of the vocabulary that are trained whole: "embed", "head".
        tokens: Tables of which single rows are trained, and the tokens of these rows.
        where: The file of the configuration, for messages.

    Raises:
        InputError: A rank is not positive, a target or a table is unknown, an alpha is
            not finite, the dropout is not in [0, 1), or a list of tokens is empty or
            has one twice.

    >>> LoraConfig(r=4).scale
    4.0
    """

    r: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    dropout: float = 0.05
    rslora: bool = False
    dora: bool = False
    bias: bool = False
    rules: Rules | None = None
    sites: tuple[Site, ...] = ()
    tables: tuple[str, ...] = ()
    tokens: tuple[tuple[str, tuple[int, ...]], ...] = ()
    where: str = field(default="", compare=False, repr=False)

    def __post_init__(self):
        with located(self.where):
            self._check()
        # Sort the names, so that equal configurations compare equal.
        object.__setattr__(self, "targets", tuple(sorted(set(self.targets))))

    def _check(self) -> None:
        for r, alpha in [(self.r, self.alpha), *((s.r, s.alpha) for s in self.sites)]:
            if r < 1:
                raise InputError(
                    f"LoRA rank r must be at least 1, got {r}: correct it."
                )
            if not math.isfinite(alpha):
                raise InputError(f"LoRA alpha must be finite, got {alpha}: correct it.")
        unknown = sorted(set(self.targets) - set(LINEAR_NAMES))
        if unknown or not self.targets:
            raise InputError(
                f"LoRA target modules must be among {', '.join(LINEAR_NAMES)}, got "
                f"{', '.join(unknown) or 'none'}: name some of these."
            )
        if not 0 <= self.dropout < 1:
            raise InputError(
                f"LoRA dropout must be in [0, 1), got {self.dropout}: correct it."
            )
        trained = [*self.tables, *(table for table, _ in self.tokens)]
        if not set(trained) <= set(TABLES) or len(set(trained)) < len(trained):
            raise InputError(
                f"tables that are trained must be among {', '.join(TABLES)}, each "
                f"whole or in part, got {', '.join(trained)}: name each once."
            )
        for table, ids in self.tokens:
            if not ids or len(set(ids)) < len(ids):
                raise InputError(
                    f"the tokens of {TABLES[table]} that are trained must be different "
                    f"and at least one, got {list(ids)}: leave out a table without "
                    "tokens, and train no row twice."
                )

    @property
    def scale(self) -> float:
        """The factor alpha / r, or alpha / sqrt(r), of the update."""
        return self._scale(self.r, self.alpha)

    @property
    def is_plain(self) -> bool:
        """Whether the adapters are A and B of the same rank and scale in all layers."""
        return not self._variant

    def trains_head(self, *, tied: bool) -> bool:
        """Tell whether the output head, or a part of it, belongs to the adapter.

        Args:
            tied: Whether the head is the embedding, whose single rows they share.

        >>> LoraConfig(tokens=(("embed", (5,)),)).trains_head(tied=True)
        True
        """
        tokens = dict(self.tokens)
        return "head" in (*self.tables, *tokens) or (tied and "embed" in tokens)

    def frozen_layers(self) -> int:
        """Return how many layers lie below all that is trained.

        What they compute does not depend on the adapter. There are none where the
        embedding is trained, as a whole or in some rows.

        >>> rules = Rules(targets=("q_proj",), layers=(1,))
        >>> LoraConfig(rules=rules).resolved(DecoderConfig.tiny()).frozen_layers()
        1
        """
        if "embed" in (*self.tables, *dict(self.tokens)):
            return 0
        return min((site.layer for site in self.sites), default=0)

    def resolved(self, config: DecoderConfig) -> "LoraConfig":
        """Apply the rules to a model of a number of layers.

        Args:
            config: Sizes of the model.

        Raises:
            InputError: The rules match no layer, or a token is outside the vocabulary.

        >>> rules = Rules(targets=("q_proj", "v_proj"), ranks=(("q_proj", 2),))
        >>> LoraConfig(rules=rules).resolved(DecoderConfig.tiny()).ranks("q_proj", 2)
        (2, 2)
        """
        with located(self.where):
            return self._resolved(config)

    def _resolved(self, config: DecoderConfig) -> "LoraConfig":
        if config.fused and (self.dora or self.bias):
            raise InputError(
                "DoRA and biases of adapters are not supported for a model whose "
                "q_proj, k_proj and v_proj are one matrix: use plain LoRA."
            )
        outside = [i for _, ids in self.tokens for i in ids if i >= config.vocab_size]
        if outside:
            raise InputError(
                f"the adapter trains token {outside[0]}, but the vocabulary has "
                f"{config.vocab_size}: use the model that it was trained with."
            )
        tokens, table = dict(self.tokens), dict(self.tokens).get("embed")
        if config.tie_embeddings and table and "head" in self.tables:
            raise InputError(
                "the adapter trains tokens of the embedding and the whole output head, "
                "which are one table in this model: train one of them."
            )
        if config.tie_embeddings and tokens.get("head") == table:
            tokens.pop("head", None)  # the rows are those of the embedding
        lora = replace(self, tokens=tuple(sorted(tokens.items())))
        if self.rules is None:
            _refuse_experts(self.targets, config)
            return lora
        layers, fused = config.num_layers, config.fused
        sites = self.rules.sites(layers, self.r, self.alpha, fused=fused)
        names = tuple(sorted({site.name for site in sites}))
        _refuse_experts(names, config)
        r, kinds = max(s.r for s in sites), {(s.r, s.alpha) for s in sites}
        found = {"rules": None, "targets": names, "r": r}
        if len(kinds) == 1 and len(sites) == len(names) * config.num_layers:
            return replace(lora, **found, alpha=sites[0].alpha)
        return replace(lora, **found, sites=sites)

    def ranks(self, name: str, num_layers: int) -> tuple[int, ...]:
        """Return the rank of a linear layer in each layer, 0 without an adapter."""
        if not self.sites:
            return (self.r if name in self.targets else 0,) * num_layers
        found = {site.layer: site.r for site in self.sites if site.name == name}
        return tuple(found.get(layer, 0) for layer in range(num_layers))

    def scales(self, name: str, num_layers: int) -> tuple[float, ...]:
        """Return the scale of a linear layer in each layer, 0 without an adapter."""
        if not self.sites:
            return (self.scale if name in self.targets else 0.0,) * num_layers
        mine = (site for site in self.sites if site.name == name)
        found = {site.layer: self._scale(site.r, site.alpha) for site in mine}
        return tuple(found.get(layer, 0.0) for layer in range(num_layers))

    def width(self, name: str) -> int:
        """Return the largest rank of a linear layer, which is the width of its A."""
        return max((s.r for s in self.sites if s.name == name), default=self.r)

    def identity(self) -> Mapping[str, Any]:
        """Return the fields that tell configurations apart, without idle variants."""
        named = (*PLAIN, *self._variant)
        return {name: value for name, value in asdict(self).items() if name in named}

    @property
    def _variant(self) -> list[str]:
        """The fields that make these adapters a variant of LoRA."""
        rest = (f for f in fields(self) if f.compare and f.name not in PLAIN)
        return [f.name for f in rest if getattr(self, f.name) != f.default]

    def _scale(self, r: int, alpha: float) -> float:
        return alpha / math.sqrt(r) if self.rslora else alpha / r


def _refuse_experts(targets: tuple[str, ...], config: DecoderConfig) -> None:
    """Refuse adapters of experts, which PEFT keeps in a form of their own.

    Raises:
        InputError: The model is a mixture of experts, and a target is in its MLPs.
    """
    attention = [name for name in LINEAR_NAMES if BLOCKS[name] == "self_attn"]
    inside = [name for name in targets if name not in attention]
    if inside and config.mixture is not None:
        raise InputError(
            f"adapters of experts ({', '.join(inside)}) are not supported, and this "
            "model is a mixture of experts: name linear layers of attention alone "
            f"({','.join(attention)})."
        )


DEFAULT_LORA = LoraConfig()
