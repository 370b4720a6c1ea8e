"""A layer of a decoder: attention, then MLP or experts, each added to what it reads."""

from flax import nnx
from jaxtyping import Array, Float

from goracs_jax.models.attention import Attention, KeysValues, Look
from goracs_jax.models.config import DecoderConfig
from goracs_jax.models.execution import ONE_DEVICE, Execution
from goracs_jax.models.experts import Experts
from goracs_jax.models.layers import MLP, RMSNorm
from goracs_jax.models.lora import LoraConfig


class DecoderLayer(nnx.Module):
    """A decoder layer: x + attention(norm(x)), then x + mlp(norm(x)).

    With post norms, the outputs of attention and MLP are normalised before they are
    added. Without pre norms, attention and MLP read what is not normalised.
    """

    def __init__(self, c: DecoderConfig, lora: LoraConfig, *, rngs: nnx.Rngs, dtype):
        norm = lambda: RMSNorm(
            c.hidden_size, c.norm_eps, offset=c.norm_offset, dtype=dtype
        )
        self.pre_norms, self.residual_scale = c.pre_norms, c.residual_scale
        if c.pre_norms:
            self.attention_norm, self.mlp_norm = norm(), norm()
        self.attention = Attention(c, lora, rngs=rngs, dtype=dtype)
        if c.mixture is None:
            self.mlp = MLP(c, lora, rngs=rngs, dtype=dtype)
        else:
            self.mlp = Experts(c, c.mixture, rngs=rngs, dtype=dtype)
        self.post_norms = c.post_norms
        if c.post_norms:
            self.attention_post_norm, self.mlp_post_norm = norm(), norm()

    def __call__(
        self,
        x: Float[Array, "*batch time dim"],
        look: Look,
        past: KeysValues | None = None,
        execution: Execution = ONE_DEVICE,
    ) -> tuple[Float[Array, "*batch queries dim"], KeysValues]:
        """Run the layer; return its output and the tokens' keys and values.

        See `Attention` for the arguments, and for the tokens that have an output. The
        execution says which device routes which tokens to experts.
        """
        read = self.attention_norm(x) if self.pre_norms else x
        mixed, new = self.attention(read, look, past)
        x = look.queries(x)
        mixed = self.attention_post_norm(mixed) if self.post_norms else mixed
        x = x + self._scaled(mixed)
        read = self.mlp_norm(x) if self.pre_norms else x
        mlp = self.mlp
        changed = mlp(read, execution) if isinstance(mlp, Experts) else mlp(read)
        changed = self.mlp_post_norm(changed) if self.post_norms else changed
        return x + self._scaled(changed), new

    def _scaled(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return x if self.residual_scale == 1.0 else x * self.residual_scale
