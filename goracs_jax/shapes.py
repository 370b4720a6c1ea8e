"""Array types by the names of their axes; the same words stand in every signature.

train (N) and valid (M) are the two sets, budget (n) the size of the subset, dim the
width of an embedding. Axes of language models: batch, time, vocab. Functions that check
what they are given take AnyArray and say the shape in words.
"""

import jax
import numpy as np
from jaxtyping import Float, Int

AnyArray = jax.Array | np.ndarray

Train = Float[AnyArray, "train dim"]
Valid = Float[AnyArray, "valid dim"]
GradNorms = Float[AnyArray, " train"]
Rows = Int[AnyArray, " budget"]
