"""Llama-family decoders, BERT-like encoders, LoRA adapters, and their files."""

from goracs_jax.models.config import DecoderConfig as DecoderConfig
from goracs_jax.models.config import EncoderConfig as EncoderConfig
from goracs_jax.models.decoder import Decoder as Decoder
from goracs_jax.models.encoder import Encoder as Encoder
from goracs_jax.models.gguf_file import open_gguf as open_gguf
from goracs_jax.models.hub import fetch_model as fetch_model
from goracs_jax.models.lora import LoraConfig as LoraConfig
from goracs_jax.models.lora import LoRALinear as LoRALinear
from goracs_jax.models.lora import with_dropout as with_dropout
from goracs_jax.models.merge import merge_adapters as merge_adapters
from goracs_jax.models.merge import save_merged as save_merged
from goracs_jax.models.peft import check_adapter as check_adapter
from goracs_jax.models.peft import load_adapter as load_adapter
from goracs_jax.models.peft import read_lora_config as read_lora_config
from goracs_jax.models.peft import save_adapter as save_adapter
from goracs_jax.models.rope import RopeConfig as RopeConfig
from goracs_jax.models.tokenizer import load_tokenizer as load_tokenizer
from goracs_jax.models.weights import decoder_config as decoder_config
from goracs_jax.models.weights import load_decoder as load_decoder
from goracs_jax.models.weights import load_encoder as load_encoder
