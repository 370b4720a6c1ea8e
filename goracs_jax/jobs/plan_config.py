"""From the flags of `goracs plan` to a job and its devices."""

from dataclasses import dataclass
from pathlib import Path

from goracs_jax.ahead.topology import Topology, here, parse
from goracs_jax.choices import Remat
from goracs_jax.errors import InputError
from goracs_jax.llm.batches import bucket_length
from goracs_jax.llm.profile import CPU_TOKENS, MOST_TOKENS, default_dtype
from goracs_jax.llm.sizes import Placement
from goracs_jax.models import DecoderConfig, decoder_config
from goracs_jax.settings import Plan

#: The most of anything that is counted.
MOST = 10**12


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """A job and how it runs."""

    model: DecoderConfig
    path: Path
    topology: Topology
    train_rows: int
    valid_rows: int
    length: int  # padded tokens of an example
    scored: int  # those that the loss scores
    budget: int
    epochs: int = 50
    batch_size: int = 128
    model_devices: int = 1
    dtype: str = "bfloat16"
    remat: Remat = "products"
    tokens_per_batch: int | None = None

    @classmethod
    def of(cls, settings: Plan) -> "PlanConfig":
        """Check the flags and read the sizes of the model.

        Raises:
            InputError: The first flag or field that is wrong.
        """
        s = settings
        topology = here() if s.topology == "here" else parse(s.topology)
        numbers = ("train_rows", "valid_rows", "row_tokens", "budget", "epochs")
        for name in (*numbers, "scored_tokens", "batch_size", "tokens_per_batch"):
            flag, value = "--" + name.replace("_", "-"), getattr(s, name)
            if value is not None and value < 1:
                raise InputError(f"{flag} must be at least 1, got {value}.")
            if value is not None and value > MOST:
                raise InputError(f"{flag} must be at most {MOST}, got {value}.")
        if s.budget > s.train_rows:
            raise InputError(
                f"--budget must be in [1, {s.train_rows}], the --train-rows, got "
                f"{s.budget}."
            )
        if s.model_devices < 1 or topology.devices % s.model_devices:
            raise InputError(
                f"--model-devices must divide the {topology.devices} devices of "
                f"{topology.name}, got {s.model_devices}."
            )
        model = decoder_config(s.model)
        if s.row_tokens > model.max_positions:
            raise InputError(
                f"--row-tokens {s.row_tokens} is more than the model's context of "
                f"{model.max_positions}."
            )
        length = bucket_length(s.row_tokens)
        if s.scored_tokens is not None and s.scored_tokens > s.row_tokens:
            raise InputError(
                f"--scored-tokens must be in [1, {s.row_tokens}], the --row-tokens, "
                f"got {s.scored_tokens}."
            )
        return cls(
            model=model,
            path=s.model,
            topology=topology,
            train_rows=s.train_rows,
            valid_rows=s.valid_rows,
            length=length,
            scored=s.scored_tokens or length,
            budget=s.budget,
            epochs=s.epochs,
            batch_size=s.batch_size,
            model_devices=s.model_devices,
            dtype=s.dtype or default_dtype(topology.kind),
            remat=s.remat,
            tokens_per_batch=s.tokens_per_batch,
        )

    @property
    def data(self) -> int:
        """Devices over which examples go."""
        return self.topology.devices // self.model_devices

    def most_tokens(self, pass_name: str) -> int:
        """Return a bound of the tokens of a batch on one device: that of a run."""
        on_cpu = self.topology.kind.platform == "cpu"
        default = CPU_TOKENS[pass_name] if on_cpu else MOST_TOKENS
        return self.tokens_per_batch or default

    @property
    def placement(self) -> Placement:
        """How the passes lie on the devices."""
        return self.topology.placement(
            model_devices=self.model_devices, dtype=self.dtype, remat=self.remat
        )
