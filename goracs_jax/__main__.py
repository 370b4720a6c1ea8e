"""`python -m goracs_jax`: the same as `goracs`."""

import sys

from goracs_jax.cli import main

sys.exit(main())
