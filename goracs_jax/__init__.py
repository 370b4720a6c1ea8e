"""Choose what to fine-tune an LLM on, by optimal transport and gradients, in JAX."""

from goracs_jax.errors import InputError as InputError
from goracs_jax.llm.embeddings import embed_with_decoder as embed_with_decoder
from goracs_jax.llm.embeddings import embed_with_encoder as embed_with_encoder
from goracs_jax.llm.gradients import gradient_norms as gradient_norms
from goracs_jax.llm.tokens import Tokens as Tokens
from goracs_jax.llm.tokens import load_tokenizer as load_tokenizer
from goracs_jax.llm.tokens import tokenize as tokenize
from goracs_jax.models import LoraConfig as LoraConfig
from goracs_jax.models import load_adapter as load_adapter
from goracs_jax.models import load_decoder as load_decoder
from goracs_jax.models import load_encoder as load_encoder
from goracs_jax.models import merge_adapters as merge_adapters
from goracs_jax.models import read_lora_config as read_lora_config
from goracs_jax.models import save_adapter as save_adapter
from goracs_jax.models import save_merged as save_merged
from goracs_jax.selection import SELECTORS as SELECTORS
from goracs_jax.selection import Selection as Selection
from goracs_jax.selection import goracs as goracs
from goracs_jax.selection import poo as poo
from goracs_jax.selection import sweep as sweep
from goracs_jax.training import FinetuneConfig as FinetuneConfig
from goracs_jax.training import finetune as finetune
