"""Optimal transport between two discrete measures."""

from goracs_jax.transport.batched import pair_values as pair_values
from goracs_jax.transport.choose import SOLVERS as SOLVERS
from goracs_jax.transport.choose import find_solver as find_solver
from goracs_jax.transport.exact import exact as exact
from goracs_jax.transport.sinkhorn import sinkhorn as sinkhorn
from goracs_jax.transport.types import Solver as Solver
from goracs_jax.transport.types import Transport as Transport
from goracs_jax.transport.types import dual_value as dual_value
