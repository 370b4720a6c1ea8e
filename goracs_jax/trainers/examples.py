"""Examples of any form, in batches of few shapes, over one device or a mesh."""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Int64, PyTree

from goracs_jax.errors import InputError
from goracs_jax.llm.batches import Words, batch_rows
from goracs_jax.mesh import DATA, EVERYWHERE
from goracs_jax.trainers.arguments import check_source, checked_count

logger = logging.getLogger(__name__)

#: Examples of a batch on each device: enough for products of matrices, few enough for a
#: loss that keeps all logits.
BATCH = 8
SMALLER = (
    "give smaller examples, spread params and frozen over a mesh, or let the loss keep "
    "less for its gradient (jax.checkpoint); a larger device helps, too."
)
#: More shapes than this are said: each is a program that has to be compiled.
MANY_SHAPES = 16


class ExampleBatch(NamedTuple):
    """Examples of equal shapes; the last one is repeated where `rows` is -1."""

    rows: Int64[np.ndarray, " batch"]
    shape: tuple[int, Hashable]
    read: Callable[[Int64[np.ndarray, " batch"]], PyTree]

    def arrays(self) -> tuple[PyTree]:
        """Read the examples, as one pytree of arrays [batch, ...]."""
        return (self.read(np.where(self.rows < 0, self.rows.max(), self.rows)),)

    @property
    def num_examples(self) -> int:
        """The number of rows that are not filler."""
        return int((self.rows >= 0).sum())

    @property
    def work(self) -> int:
        """The examples."""
        return self.num_examples

    @property
    def row_size(self) -> int:
        """The numbers of an example."""
        return max(1, _size(self.shape[1]))

    @property
    def words(self) -> Words:
        """How messages speak of it."""
        return Words(f"{len(self.rows)} examples", "batch_size", SMALLER)

    def pieces(self, size: int) -> "list[ExampleBatch]":
        """Cut it into batches of so many examples, of which the last is filled up."""
        padded = np.pad(self.rows, (0, -len(self.rows) % size), constant_values=-1)
        form = (size, self.shape[1])
        return [
            ExampleBatch(rows, form, self.read) for rows in padded.reshape(-1, size)
        ]


def example_batches(
    examples: Any, batch_size: int | None, mesh: Mesh | None
) -> list[ExampleBatch]:
    """Put examples of equal shapes together into batches of one size for each shape.

    Nothing is padded; only a last batch that is not full repeats an example, whose
    results are dropped.

    Args:
        examples: A pytree of arrays [examples, ...]; or a list, or anything else with
            a length that gives an example by its number, of pytrees of arrays.
        batch_size: Examples of a batch, over all devices; by default 8 on each.
        mesh: The devices, of whose axis `data` each index gets as many examples.

    Returns:
        The batches, the largest examples first, so that a lack of memory shows at once.

    Raises:
        InputError: There are no examples, arrays have different leading sizes, a leaf
            is not an array of numbers, or an integer does not fit JAX's type.

    >>> [b.rows.tolist() for b in example_batches({"x": np.ones((5, 2))}, 3, None)]
    [[0, 1, 2], [3, 4, -1]]
    """
    devices = 1 if mesh is None else mesh.shape[DATA]
    per_device = BATCH
    if batch_size is not None:
        per_device = max(1, checked_count("batch_size", batch_size) // devices)
    groups, read = _by_shape(examples)
    if len(groups) > MANY_SHAPES:
        logger.warning(
            "The examples have %d shapes, and a program is compiled for each: pad them "
            "to a few lengths.",
            len(groups),
        )
    batches = []
    for shape in sorted(groups, key=_size, reverse=True):
        rows = groups[shape]
        size = batch_rows(1, per_device, evenly=len(rows), devices=devices)
        whole = ExampleBatch(np.array(rows, np.int64), (len(rows), shape), read)
        batches += whole.pieces(size)
    return batches


def forms_of(
    batches: Sequence[ExampleBatch],
) -> list[tuple[int, PyTree[jax.ShapeDtypeStruct]]]:
    """Return the first example of each shape: its number, from 1, and its form.

    The form is the shapes and types of its arrays, as JAX will see them.

    >>> forms_of(example_batches([np.ones(2), np.ones(3), np.ones(2)], None, None))[1]
    (2, ShapeDtypeStruct(shape=(3,), dtype=float32))
    """
    numbers: dict[Any, int] = {}
    for batch in batches:
        numbers.setdefault(batch.shape[1], int(batch.rows[0]) + 1)
    forms = []
    for (structure, leaves), number in numbers.items():
        seen = [
            jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(kind))
            for _, shape, kind in leaves
        ]
        forms.append((number, jax.tree.unflatten(structure, seen)))
    return sorted(forms, key=lambda form: form[0])


def _by_shape(examples: Any) -> tuple[Mapping[Hashable, Sequence[int]], Callable]:
    """Return the numbers of the examples of each shape, and how rows are read."""
    if _is_sequence(examples):
        check_source(examples, "examples")
        if not len(examples):
            raise InputError("there are no examples: give at least one.")
        groups: dict[Hashable, list[int]] = {}
        for i in range(len(examples)):
            shape = _shape(examples[i], i)
            if not shape[1]:
                raise InputError(f"example {i + 1} has no arrays: leave it out.")
            groups.setdefault(shape, []).append(i)

        def stacked(rows: Int64[np.ndarray, " batch"]) -> PyTree:
            found = [examples[int(i)] for i in rows]
            return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

        return groups, stacked
    treedef, leaves = _shape(examples)
    sizes = {path: shape[0] if shape else None for path, shape, _ in leaves}
    first, count = next(iter(sizes.items()), ("", None))
    for path, size in sizes.items():
        if size is None or size != count:
            raise InputError(
                "arrays of examples have the examples along their first axis: "
                f"examples{first} has {count} and examples{path} {size}. Give a list "
                "if each item is one example."
            )
    if not count:
        raise InputError("there are no examples: give at least one.")
    one = (treedef, tuple((path, shape[1:], kind) for path, shape, kind in leaves))
    taken = lambda rows: jax.tree.map(lambda x: x[rows], examples)
    return {one: range(count)}, taken


def _is_sequence(examples: Any) -> bool:
    if isinstance(examples, list):
        return True
    leaf = jax.tree.structure(examples) == jax.tree.structure(0)
    array = hasattr(examples, "dtype") and hasattr(examples, "shape")
    return leaf and not array and hasattr(examples, "__getitem__")


def _shape(tree: PyTree, row: int | None = None) -> tuple[Any, tuple]:
    """Return the structure of a pytree, and path, shape and type of each leaf.

    It is one example if its row is given, else all of them.
    """
    what, found = "examples" if row is None else f"example {row + 1}", []
    for path, leaf in leaves_of(tree):
        kind = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if getattr(kind, "kind", "") in "OSUMm":
            raise InputError(
                f"{what}{path} is not an array of numbers but "
                f"{type(leaf).__name__} ({kind}): leave it out, or make it numbers."
            )
        place, read_as = _first_that_wraps(leaf, kind)
        if place is not None:
            number = (place if row is None else row) + 1
            raise InputError(
                f"example {number}{path} has an integer beyond {read_as}, as which JAX "
                "would read another: give smaller ones, or set jax_enable_x64."
            )
        found.append((path, np.shape(leaf), str(kind)))
    return jax.tree.structure(tree), tuple(found)


def _first_that_wraps(leaf: Any, kind: np.dtype) -> tuple[int | None, np.dtype]:
    """Return the first row with an integer that JAX's type does not hold, and that."""
    read_as = jax.dtypes.canonicalize_dtype(kind)
    if kind.kind not in "iu" or read_as == kind or not np.size(leaf):
        return None, read_as
    values, limits = np.atleast_1d(leaf), np.iinfo(read_as)
    if limits.min <= values.min() and values.max() <= limits.max:
        return None, read_as
    wraps = (values < limits.min) | (values > limits.max)
    return int(np.argwhere(wraps)[0, 0]), read_as


def _size(shape: Any) -> int:
    return sum(int(np.prod(leaf, dtype=np.int64)) for _, leaf, _ in shape[1])


def leaves_of(tree: PyTree) -> list[tuple[str, Any]]:
    """Return the path of each leaf, as it is written in Python, and the leaf.

    >>> leaves_of({"a": [1]})
    [("['a'][0]", 1)]
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def named(x: jax.Array) -> jax.Array:
    """Widen types that a .npy file has no name for, such as bfloat16, to float32.

    >>> named(jax.numpy.ones(1, "bfloat16")).dtype
    dtype('float32')
    """
    return x.astype(np.float32) if x.dtype.kind == "V" else x


def placed(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Copy arrays to every device of a mesh; what is on all of them stays there."""
    if mesh is None:
        return tree
    devices = set(mesh.devices.flat)

    def place(x: Any) -> jax.Array:
        spec = EVERYWHERE
        if isinstance(x, jax.Array) and x.sharding.device_set == devices:
            now = x.sharding
            if not isinstance(now, NamedSharding) or now.mesh.shape != mesh.shape:
                return x  # over another mesh of the same devices
            spec = now.spec
        return jax.device_put(x, NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)
