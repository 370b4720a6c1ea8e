"""Optimal transport between two discrete measures."""

from goracs_jax.transport.batched import pair_values as pair_values
from goracs_jax.transport.solvers import SOLVERS as SOLVERS
from goracs_jax.transport.solvers import Solver as Solver
from goracs_jax.transport.solvers import Transport as Transport
from goracs_jax.transport.solvers import exact as exact
from goracs_jax.transport.solvers import find_solver as find_solver
from goracs_jax.transport.solvers import sinkhorn as sinkhorn
