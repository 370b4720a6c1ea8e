"""Spaces in which distances are taken, and the rewards beside them."""

from goracs_jax.spaces.directions import coordinates as coordinates
from goracs_jax.spaces.directions import leading_directions as leading_directions
from goracs_jax.spaces.rewards import Reward as Reward
from goracs_jax.spaces.rewards import alignment as alignment
from goracs_jax.spaces.rewards import probe as probe
from goracs_jax.spaces.space import Source as Source
from goracs_jax.spaces.space import Space as Space
from goracs_jax.spaces.transforms import Center as Center
from goracs_jax.spaces.transforms import Drop as Drop
from goracs_jax.spaces.transforms import Fitted as Fitted
from goracs_jax.spaces.transforms import Subspace as Subspace
from goracs_jax.spaces.transforms import Transform as Transform
from goracs_jax.spaces.transforms import Whiten as Whiten
from goracs_jax.spaces.transforms import transform_of as transform_of
from goracs_jax.spaces.transforms import unit_rows as unit_rows
