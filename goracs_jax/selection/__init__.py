"""Choose n of N rows: the objective, the methods, and a bound on all of them."""

from goracs_jax.selection.problem import Problem as Problem
from goracs_jax.selection.problem import Selection as Selection
from goracs_jax.selection.problem import Selector as Selector
from goracs_jax.selection.problem import Step as Step
from goracs_jax.selection.select import SELECTORS as SELECTORS
from goracs_jax.selection.select import goracs as goracs
from goracs_jax.selection.select import poo as poo
from goracs_jax.selection.select import select as select
from goracs_jax.selection.sweep import sweep as sweep
