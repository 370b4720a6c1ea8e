"""Wishes: what a subset must meet beside a low POO, as one object for all stages."""

from goracs_jax.selection.wishes.given import keep_apart as keep_apart
from goracs_jax.selection.wishes.given import make_wishes as make_wishes
from goracs_jax.selection.wishes.given import row_wishes as row_wishes
from goracs_jax.selection.wishes.record import Wishes as Wishes
from goracs_jax.selection.wishes.record import meets as meets
from goracs_jax.selection.wishes.record import total as total
