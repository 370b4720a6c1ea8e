"""The files that verbs write: their names, and the annotations of the flags."""

from pathlib import Path
from typing import Annotated

from goracs_jax.settings.flags import Flag

MANIFEST = "manifest.json"
#: Records that were left out, in a folder of results or behind the name of a file.
SKIPPED = "skipped.jsonl"
#: What the verbs leave in their folders; a manifest tells that the rest is complete.
SELECTED = (
    *("indices.npy", "coreset.jsonl", "coreset.parquet", "dataset_info.json"),
    *("scores.npz", MANIFEST, "report.png"),
)
SUMMARY = ("summary.json", "summary.png")
EXAMPLES = ("train.jsonl", "valid.jsonl", "test.jsonl", "items.jsonl")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "metrics.jsonl")
COMPARED = ("table.md", "table.csv", "comparison.json", "comparison.png")
CHECKED = ("check.json", "check.png")


def _in_folder(*names: str) -> Flag:
    return Flag(writes=tuple(f"{{name}}/{name}" for name in names))


#: An array, the record of its origin, and the folder of its stage while it runs.
_ARRAY = Flag(writes=("{name}", "{name}.json", "{name}.work/*"))
_FIRST = Flag(writes=(*_ARRAY.writes, f"{{name}}.{SKIPPED}"))
ArrayOut = Annotated[Path, _FIRST]
MoreOut = Annotated[Path | None, _ARRAY]
MetricsOut = Annotated[
    Path,
    Flag(
        writes=(
            *("{name}", "{stem}.predictions.jsonl", "{name}.work/*"),
            f"{{name}}.{SKIPPED}",
        )
    ),
]
SelectOut = Annotated[
    Path,
    _in_folder(
        *SELECTED,
        *SUMMARY,
        SKIPPED,
        *(f"budget-*-lambda-*/{name}" for name in SELECTED),
    ),
]
DemoOut = Annotated[Path, _in_folder(*EXAMPLES[:2], *SELECTED)]
ExamplesOut = Annotated[Path, _in_folder(*EXAMPLES, MANIFEST)]
AdapterOut = Annotated[Path, _in_folder(*ADAPTER, MANIFEST, SKIPPED, "tensorboard/*")]
ModelOut = Annotated[
    Path, _in_folder("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
]
CompareOut = Annotated[
    Path, _in_folder(*COMPARED, SKIPPED, "shared/*.npy", "shared/*.npy.*")
]
CheckOut = Annotated[Path, _in_folder(*CHECKED, SKIPPED)]
PlanOut = Annotated[Path, _in_folder("plan.json")]
