"""Methods of selection: what a method is, the built-in ones, and their registry.

Nothing here imports JAX, so that help texts and checks of flags can read the registry
at no cost: a method imports its algorithm when it is asked to choose.
"""

from goracs_jax.selection.method.builtin import Goracs as Goracs
from goracs_jax.selection.method.builtin import Herding as Herding
from goracs_jax.selection.method.builtin import Itra as Itra
from goracs_jax.selection.method.builtin import KMeans as KMeans
from goracs_jax.selection.method.peers import Gist as Gist
from goracs_jax.selection.method.peers import Tsds as Tsds
from goracs_jax.selection.method.peers import UnbalancedOT as UnbalancedOT
from goracs_jax.selection.method.record import FunctionMethod as FunctionMethod
from goracs_jax.selection.method.record import Home as Home
from goracs_jax.selection.method.record import Method as Method
from goracs_jax.selection.method.record import Need as Need
from goracs_jax.selection.method.record import Searching as Searching
from goracs_jax.selection.method.record import home_of as home_of
from goracs_jax.selection.method.record import needs_of as needs_of
from goracs_jax.selection.method.record import with_search as with_search
from goracs_jax.selection.method.registry import METHODS as METHODS
from goracs_jax.selection.method.registry import find_method as find_method
from goracs_jax.selection.method.registry import heeding_methods as heeding_methods
from goracs_jax.selection.method.registry import known_methods as known_methods
from goracs_jax.selection.method.registry import register as register
from goracs_jax.selection.method.settings import GroupExchange as GroupExchange
from goracs_jax.selection.method.settings import LowerBound as LowerBound
from goracs_jax.selection.method.settings import PairMoves as PairMoves
from goracs_jax.selection.method.settings import (
    SimulatedAnnealing as SimulatedAnnealing,
)

SELECTORS = METHODS
"""The registry under its older public name."""
