"""Array types by the names of their axes, and the glossary of the project.

The sets and what is chosen:
    N, train        training examples, the pool that is chosen from; x_i is an embedding
    M, valid        validation examples, what the choice is to represent; y_j likewise
    n, budget       size of the subset
    S, subset       the n training rows that are chosen, also called the coreset
    D, distance     D_ij = ||x_i - y_j||_2
    g_i, norm       norm of the loss gradient of training example i; also "grad norm"
    lambda          weight of the gradient norms, in units of max(D)
    C, cost         C_ij = D_ij / max(D) - lambda g_i / max(g), kept as its factors
    reward          lambda g_i / max(g), what a training row takes off its costs; given
                    as r_i of any sign, lambda r_i / max|r|
    matrix          D / max(D) in memory, where it is small (`cost.materialize`)
    block, pass     consecutive rows of C; a walk over all blocks
    tiling, mesh    how C is cut for devices and blocks; devices, in a row for C, and in
                    a grid for language models
    local           the number of training rows on this device
    class           the label of a row, where a selection is label-aware (Algorithm 2);
                    flags and arguments such as `train_labels` have classes, too

Optimal transport:
    a, b, P         masses of rows and columns, and the plan that moves one to the other
    f, g            potentials of rows and columns (g without an index; g_i is a norm)
    epsilon         entropic regularisation of Sinkhorn
    POO             the objective: OT cost C of the uniform measures on S and V
    lower bound     a number that no subset of this size has a POO below
    price           what mass costs that a validation point lacks, a potential g_j
    core, arc       rows that are asked for their worth at some prices; a pair of such a
                    row and one of the points that it lists

The search:
    slot, group     one of the n places in S; the validation mass that P sends to it
    unit            an equal part of the validation mass, of which a slot has s
    candidate       a row that may enter a slot
    pool            the candidates of all slots; of verbs, a file of examples
    wish            what a subset must meet beside a low POO: rows in or out, limits of
                    groups and costs, near rows of which one is chosen at most
    incumbent       the subset that a search tries to improve
    step, trace     one entry of a selection's history; all of them

Language models:
    labels          targets per token, -100 where a token is not scored
    scored          which tokens count for the loss: all, or those of the answer
    lower states    hidden states before the first layer that has an adapter; the layers
                    below all adapters are the lower layers
    experts, router  MLPs of one layer, and what chooses the active ones of a token
    prediction error  EL2N score of an example (an `Error` is an exception)
    record          an example as a dict: instruction, input, output

Running:
    method          how rows are chosen, what the choice needs, and whether lambda
                    weighs in it (a `Method`)
    verb, stage     a command of the command line; a part of it that is kept and resumed
    identity        all that the bytes of a stage depend on; its hash names the stage
    run             one execution of a verb, with its manifest
    grid point      one budget with one lambda, in a selection of several
    trial           one model that `compare` fine-tunes and evaluates; its cost is in
                    seconds and FLOPs, by part

Axes of arrays: train, valid, budget, dim (width of an embedding), rows, units; for
language models batch, time, vocab, dim, tokens (of all texts), experts.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Real

AnyArray = jax.Array | np.ndarray
#: What the front doors take, and `goracs_jax.inputs.arrays.as_array` reads: arrays,
#: tensors of other libraries, frames, datasets and lists.
GivenArray = Any

#: Sizes between two powers of two that programs are compiled for.
STEPS = 8


def sizes_alike(size: int, least_step: int = 1) -> range:
    """Return the sizes, of which this is one, that share a program for the largest.

    Between two powers of two there are `STEPS` programs, so that at most an eighth of
    what they work on is padding.

    Args:
        size: A number of rows, tokens or the like, at least 1.
        least_step: The least number of sizes that share a program.

    >>> sizes_alike(7), sizes_alike(64), sizes_alike(1000)
    (range(7, 8), range(61, 65), range(961, 1025))
    """
    step = max(least_step, (1 << (size - 1).bit_length()) // (2 * STEPS))
    largest = -(-size // step) * step
    return range(largest - step + 1, largest + 1)


Train = Real[AnyArray, "train dim"]
Valid = Float[AnyArray, "valid dim"]
GradNorms = Float[AnyArray, " train"]
Rows = Int[AnyArray, " budget"]
