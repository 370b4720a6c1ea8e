"""LoRA fine-tuning of a decoder: settings, order, batches, step, checkpoints, loop."""

from goracs_jax.training.config import TASKS as TASKS
from goracs_jax.training.config import FinetuneConfig as FinetuneConfig
from goracs_jax.training.loop import Finetuned as Finetuned
from goracs_jax.training.loop import finetune as finetune
