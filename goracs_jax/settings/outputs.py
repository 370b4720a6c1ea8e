"""The files that verbs write: their names, and the annotations of the flags."""

from pathlib import Path
from typing import Annotated

from goracs_jax.settings.flags import Flag

MANIFEST = "manifest.json"
#: What the verbs leave in their folders; a manifest tells that the rest is complete.
SELECTED = (
    "indices.npy",
    "coreset.jsonl",
    "dataset_info.json",
    "scores.npz",
    MANIFEST,
    "report.png",
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
ArrayOut = Annotated[Path, _ARRAY]
MoreOut = Annotated[Path | None, _ARRAY]
MetricsOut = Annotated[
    Path, Flag(writes=("{name}", "{stem}.predictions.jsonl", "{name}.work/*"))
]
SelectOut = Annotated[
    Path,
    _in_folder(
        *SELECTED, *SUMMARY, *(f"budget-*-lambda-*/{name}" for name in SELECTED)
    ),
]
DemoOut = Annotated[Path, _in_folder(*EXAMPLES[:2], *SELECTED)]
ExamplesOut = Annotated[Path, _in_folder(*EXAMPLES, MANIFEST)]
AdapterOut = Annotated[Path, _in_folder(*ADAPTER, MANIFEST, "tensorboard/*")]
ModelOut = Annotated[
    Path, _in_folder("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
]
CompareOut = Annotated[Path, _in_folder(*COMPARED, "shared/*.npy", "shared/*.npy.*")]
CheckOut = Annotated[Path, _in_folder(*CHECKED)]
PlanOut = Annotated[Path, _in_folder("plan.json")]
