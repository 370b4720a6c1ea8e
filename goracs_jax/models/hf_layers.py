"""Read from a Hugging Face config.json how the layers of a decoder differ."""

from typing import Any

from goracs_jax.errors import InputError, located
from goracs_jax.models.config import MixtureConfig
from goracs_jax.models.fields import Fields

#: No published model has more in one layer.
MOST_EXPERTS = 4096


def window_everywhere(window: int | None, num_layers: int) -> dict[str, Any]:
    """Return `sliding` and `window` if all layers have the same window, or none.

    >>> window_everywhere(9, 2)
    {'window': 9, 'sliding': (True, True)}
    """
    sliding = () if window is None else (True,) * num_layers
    return {"window": window, "sliding": sliding}


def windows_by_layer(
    field: Fields, window: int | None, default: list[bool]
) -> dict[str, Any]:
    """Read which layers have a window.

    Args:
        field: The fields of config.json.
        window: The number of tokens that these layers see.
        default: Whether each layer has one if the file does not say.

    Returns:
        `sliding` and `window`, or nothing if no layer has a window.

    Raises:
        InputError: The field has another length, or another kind of layer.

    >>> windows_by_layer(Fields({}, "config.json"), 9, [True, False])
    {'sliding': (True, False), 'window': 9}
    """
    kinds = {"sliding_attention": True, "full_attention": False}
    stated = field.get(
        "layer_types", [k for d in default for k in kinds if kinds[k] == d]
    )
    if not isinstance(stated, list) or len(stated) != len(default):
        raise InputError(
            f"{field.where}: field 'layer_types' must name {len(default)} layers, got "
            f"{stated!r}: take the file that was published with the weights."
        )
    for kind in stated:
        if kind not in list(kinds):  # a list, because `kind` may not be hashable
            raise InputError(
                f"{field.where}: layer_types {kind!r} is not supported: use a model "
                f"of {' and '.join(kinds)}."
            )
    sliding = tuple(kinds[kind] for kind in stated)
    if any(sliding) and window is None:
        raise InputError(
            f"{field.where}: layer_types has sliding_attention without a "
            "sliding_window: take the file that was published with the weights."
        )
    return {"sliding": sliding, "window": window} if any(sliding) else {}


def turned_layers(field: Fields, num_layers: int) -> list[bool]:
    """Read which layers rotate queries and keys: a list of 1 and 0, or an interval.

    Args:
        field: The fields of config.json.
        num_layers: The number of layers.

    Raises:
        InputError: The list has another length, or another value.

    >>> turned_layers(Fields({"no_rope_layer_interval": 2}, "config.json"), 3)
    [True, False, True]
    """
    every = field("no_rope_layer_interval", int, default=4)
    usual = [int((i + 1) % every != 0) for i in range(num_layers)]
    stated = field.get("no_rope_layers", usual)
    known = isinstance(stated, list) and all(
        type(x) is int and x in (0, 1) for x in stated
    )
    if not known or len(stated) != num_layers:
        raise InputError(
            f"{field.where}: field 'no_rope_layers' must have {num_layers} numbers, 1 "
            f"for a rotation and 0 for none, got {stated!r:.40}: take the file that "
            "was published with the weights."
        )
    return [x == 1 for x in stated]


def read_mixture(field: Fields, name: str, **family: Any) -> MixtureConfig:
    """Read how many experts there are, and how many a token goes through.

    Args:
        field: The fields of config.json.
        name: What the family calls the number of experts. transformers 5 writes
            num_local_experts for all; a file with both must not say two things.
        family: What the family decides of a `MixtureConfig`.

    Raises:
        InputError: A number is missing, or there are fewer experts than a token needs.

    >>> raw = {"num_local_experts": 8, "num_experts_per_tok": 2}
    >>> read_mixture(Fields(raw, "config.json"), "num_experts").experts
    8
    """
    written = "num_local_experts"
    experts = field(name, int, field.get(written), most=MOST_EXPERTS)
    field.only(written, {experts}, default=experts)
    # Of the loss that balances experts, and of noise in training.
    field.ignore("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")
    active = field("num_experts_per_tok", int)
    with located(field.where):
        return MixtureConfig(experts=experts, active=active, **family)
