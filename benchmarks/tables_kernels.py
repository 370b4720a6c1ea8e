"""Tables of what compilers say of attention kernels, layers and copied weights."""

from typing import Any

from figures import load, markdown


def kernels() -> str:
    """Return bytes of attention on a v5e, layers on TPUs, copied weights on an H100."""
    record = load("kernels")
    parts = _attention(record), _layers(record), _copies(record)
    return "\n\n".join("\n".join(part) for part in parts)


def _mib(number: int) -> str:
    return f"{number / 2**20:,.0f}"


def _attention(record: dict[str, Any]) -> list[str]:
    head = ["attention of", "batch", "pass", "temporaries, MiB", "with splash"]
    rows = [
        [
            row["model"],
            f"{row['examples']} x {row['tokens']:,}",
            row["pass"],
            *(_mib(row[kind]["temporaries"]) for kind in ("scores", "splash")),
            *(_mib(row[kind]["moved"]) for kind in ("scores", "splash")),
        ]
        for row in record["attention"]
    ]
    return [
        *markdown([*head, "bytes accessed, MiB", "with splash"], rows),
        "",
        "Attention of one layer in bfloat16 is compiled for one v5e, with scores in "
        "memory and with the splash kernel. Bytes accessed are the compiler's count, "
        "which does not see inside a kernel. The gradient includes the forward "
        "pass.",
    ]


def _layers(record: dict[str, Any]) -> list[str]:
    kinds = ("as it is", "halves of heads", "no barrier")
    rows = [
        [
            row["model"],
            row["topology"],
            *(f"{row[kind] / row['tokens'] / 2**10:.1f}" for kind in kinds),
        ]
        for row in record["layers"]
    ]
    tokens = record["layers"][0]["tokens"]
    return [
        *markdown(["model", "topology", *kinds], rows),
        "",
        "KiB of temporaries for each token of the embedding pass in bfloat16, with "
        f"{tokens:,} tokens on a device. With halves of heads, queries and keys are "
        "rotated by arrays of half a head, as on a CPU. With no barrier behind the "
        "gathered weights of a layer, XLA may spread a product over their parts.",
    ]


def _copies(record: dict[str, Any]) -> list[str]:
    rows = [
        [row["pass"], row["options"], "the compiler fails", ""]
        if "failed" in row
        else [
            row["pass"],
            row["options"],
            _mib(row["copied"]),
            f"{row['temporaries'] / 2**30:.2f}",
        ]
        for row in record["copies"]
    ]
    head = ["pass", "compiler options", "copied a layer, MiB", "temporaries, GiB"]
    return [
        *markdown(head, rows),
        "",
        "A Llama of 7B shape in bfloat16 runs 8 texts of 512 tokens on one H100. The "
        "matrices of a layer are copied out of the stack of layers before they are "
        "multiplied, by the forward pass and by a backward pass. No option that was "
        "tried avoids it (`benchmarks/kernels.py`).",
    ]
