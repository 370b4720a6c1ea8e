"""Read and write adapters in the format of the PEFT library."""

from goracs_jax.models.peft.config import read_lora_config as read_lora_config
from goracs_jax.models.peft.load import check_adapter as check_adapter
from goracs_jax.models.peft.load import load_adapter as load_adapter
from goracs_jax.models.peft.names import count_trained as count_trained
from goracs_jax.models.peft.save import save_adapter as save_adapter
