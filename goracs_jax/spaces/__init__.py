"""Spaces in which distances are taken: transforms of embeddings, fitted on targets."""

from goracs_jax.spaces.space import Space as Space
from goracs_jax.spaces.transforms import Center as Center
from goracs_jax.spaces.transforms import Drop as Drop
from goracs_jax.spaces.transforms import Fitted as Fitted
from goracs_jax.spaces.transforms import Subspace as Subspace
from goracs_jax.spaces.transforms import Transform as Transform
from goracs_jax.spaces.transforms import Whiten as Whiten
from goracs_jax.spaces.transforms import transform_of as transform_of
from goracs_jax.spaces.transforms import unit_rows as unit_rows
