"""The table of docs/adapters.md, from the tables that the reader of adapters uses."""

from figures import markdown

from goracs_jax.models.peft.fields import BASE_KEPT, INITS, READ, REFUSED, VERSION


def adapters() -> str:
    """Return what is read of an adapter of PEFT, and what is refused, by its fields."""
    code = lambda text: f"`{text}`"
    head = ["adapter_config.json", "what it is", f"PEFT {VERSION}"]
    kept = ", ".join([*map(code, BASE_KEPT), "`true`, `false`"])
    starts = lambda name: f"`init_lora_weights`: `{name}`"
    rows = [
        *([code(name), what, "read"] for name, what in READ.items()),
        [f"`init_lora_weights`: {kept}", "the base stays as it is", "read"],
        *([starts(name), refusal.what, "refused"] for name, refusal in INITS.items()),
        *([code(name), refusal.what, "refused"] for name, refusal in REFUSED.items()),
        ["any other field that is not neutral", "not known", "refused"],
    ]
    return "\n".join(markdown(head, rows))
