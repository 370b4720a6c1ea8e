"""Choose what to fine-tune an LLM on, by optimal transport and gradients, in JAX.

Names are imported when they are first used, so that `import goracs_jax` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goracs_jax.data.examples import read_examples as read_examples
    from goracs_jax.data.skipped import Skipped as Skipped
    from goracs_jax.data.skipped import save_skipped as save_skipped
    from goracs_jax.errors import InputError as InputError
    from goracs_jax.errors import NumericalError as NumericalError
    from goracs_jax.gradients.adam import Moments as Moments
    from goracs_jax.gradients.adam import moments_of as moments_of
    from goracs_jax.llm.embeddings import embed_with_decoder as embed_with_decoder
    from goracs_jax.llm.embeddings import embed_with_encoder as embed_with_encoder
    from goracs_jax.llm.gradients import gradient_norms as gradient_norms
    from goracs_jax.llm.losses import example_losses as example_losses
    from goracs_jax.llm.losses import loss_drop as loss_drop
    from goracs_jax.llm.lower import lower_states as lower_states
    from goracs_jax.llm.projections import projected_gradients as projected_gradients
    from goracs_jax.llm.tokenization import load_tokenizer as load_tokenizer
    from goracs_jax.llm.tokenization import tokenize as tokenize
    from goracs_jax.llm.tokens import Tokens as Tokens
    from goracs_jax.models import LoraConfig as LoraConfig
    from goracs_jax.models import load_adapter as load_adapter
    from goracs_jax.models import load_decoder as load_decoder
    from goracs_jax.models import load_encoder as load_encoder
    from goracs_jax.models import merge_adapters as merge_adapters
    from goracs_jax.models import read_lora_config as read_lora_config
    from goracs_jax.models import save_adapter as save_adapter
    from goracs_jax.models import save_merged as save_merged
    from goracs_jax.selection.baselines.tarot import tarot_budget as tarot_budget
    from goracs_jax.selection.method import METHODS as METHODS
    from goracs_jax.selection.method import SELECTORS as SELECTORS
    from goracs_jax.selection.method import FunctionMethod as FunctionMethod
    from goracs_jax.selection.method import Goracs as Goracs
    from goracs_jax.selection.method import Method as Method
    from goracs_jax.selection.method import register as register
    from goracs_jax.selection.problem import Selection as Selection
    from goracs_jax.selection.select import goracs as goracs
    from goracs_jax.selection.select import poo as poo
    from goracs_jax.selection.sweep import sweep as sweep
    from goracs_jax.spaces import Center as Center
    from goracs_jax.spaces import Drop as Drop
    from goracs_jax.spaces import Subspace as Subspace
    from goracs_jax.spaces import Whiten as Whiten
    from goracs_jax.spaces import alignment as alignment
    from goracs_jax.spaces import leading_directions as leading_directions
    from goracs_jax.spaces import probe as probe
    from goracs_jax.spaces import unit_rows as unit_rows
    from goracs_jax.trainers.embeddings import example_embeddings as example_embeddings
    from goracs_jax.trainers.gradients import ExampleGradients as ExampleGradients
    from goracs_jax.trainers.gradients import example_gradients as example_gradients
    from goracs_jax.trainers.nnx import nnx_loss as nnx_loss
    from goracs_jax.trainers.subset import Subset as Subset
    from goracs_jax.training import FinetuneConfig as FinetuneConfig
    from goracs_jax.training import finetune as finetune

    __version__: str

# The same names, for the interpreter.
_HOMES = {
    "read_examples": "data.examples",
    "Skipped": "data.skipped",
    "save_skipped": "data.skipped",
    "InputError": "errors",
    "NumericalError": "errors",
    "Moments": "gradients.adam",
    "moments_of": "gradients.adam",
    "embed_with_decoder": "llm.embeddings",
    "embed_with_encoder": "llm.embeddings",
    "gradient_norms": "llm.gradients",
    "example_losses": "llm.losses",
    "loss_drop": "llm.losses",
    "lower_states": "llm.lower",
    "projected_gradients": "llm.projections",
    "Tokens": "llm.tokens",
    "load_tokenizer": "llm.tokenization",
    "tokenize": "llm.tokenization",
    "LoraConfig": "models",
    "load_adapter": "models",
    "load_decoder": "models",
    "load_encoder": "models",
    "merge_adapters": "models",
    "read_lora_config": "models",
    "save_adapter": "models",
    "save_merged": "models",
    "tarot_budget": "selection.baselines.tarot",
    "METHODS": "selection.method",
    "SELECTORS": "selection.method",
    "FunctionMethod": "selection.method",
    "Goracs": "selection.method",
    "Method": "selection.method",
    "register": "selection.method",
    "Selection": "selection.problem",
    "goracs": "selection.select",
    "poo": "selection.select",
    "sweep": "selection.sweep",
    "Center": "spaces",
    "Drop": "spaces",
    "Subspace": "spaces",
    "Whiten": "spaces",
    "alignment": "spaces",
    "leading_directions": "spaces",
    "probe": "spaces",
    "unit_rows": "spaces",
    "example_embeddings": "trainers.embeddings",
    "ExampleGradients": "trainers.gradients",
    "example_gradients": "trainers.gradients",
    "nnx_loss": "trainers.nnx",
    "Subset": "trainers.subset",
    "FinetuneConfig": "training",
    "finetune": "training",
}
_ROOMS = (
    "cost",
    "data",
    "gradients",
    "llm",
    "models",
    "selection",
    "spaces",
    "trainers",
    "training",
    "transport",
)


def __getattr__(name: str) -> Any:
    """Import a public name, or a room such as `goracs_jax.cost`, on its first use."""
    if name == "__version__":
        from importlib.metadata import version

        value = version("goracs-jax")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS, "__version__"})
