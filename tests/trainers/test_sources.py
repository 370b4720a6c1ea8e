"""nnx losses, embeddings and subsets: what goes from and to another trainer."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from trainers.losses import DATA, EXAMPLES, NnxNet, cross_entropy

import goracs_jax as gx
from goracs_jax.errors import InputError, NumericalError

F32 = {"rtol": 1e-6, "atol": 1e-7}  # some units in the last place


def batched_loss(model, inputs, targets):
    """As a trainer has it: the mean over a batch, and its logits."""
    logits = model(inputs)
    return jnp.mean(jax.vmap(cross_entropy)(logits, targets)), logits


def prepare(batch):
    return {"inputs": batch["x"], "targets": batch["y"]}


def test_the_loss_of_a_trainer_is_called_with_one_example():
    """The oracle is the trainer's own way: nnx.value_and_grad of a batch of one."""
    model = NnxNet(nnx.Rngs(0), remat=True)
    wrt = nnx.All(nnx.Param, nnx.PathContains("outer"))
    loss, params, frozen = gx.nnx_loss(model, batched_loss, prepare, wrt=wrt)
    found = gx.example_gradients(loss, params, frozen, DATA, has_aux=True)
    of_model = nnx.value_and_grad(
        batched_loss, argnums=nnx.DiffState(0, wrt), has_aux=True
    )
    for i in range(EXAMPLES):
        batch = {name: column[i : i + 1] for name, column in DATA.items()}
        (expected, logits), gradient = of_model(model, **prepare(batch))
        norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
        np.testing.assert_allclose(found.norms[i], norm, **F32)
        np.testing.assert_allclose(found.losses[i], expected, **F32)
        np.testing.assert_allclose(found.aux[i], logits, **F32)


def test_a_model_without_what_is_asked_for():
    with pytest.raises(InputError, match=r"NnxNet has nothing that wrt=.*LoRAParam"):
        gx.nnx_loss(NnxNet(nnx.Rngs(0)), batched_loss, prepare)


# flax wants nnx.capture around; trainers' models sow all the same.
@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
def test_embeddings_are_those_of_a_loop():
    """Of examples of two shapes, whose hidden states a module sows."""
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)

    def mean(x):
        fresh = jax.tree.map(lambda leaf: leaf, state)
        module = nnx.merge(graph, fresh)
        module.sow(nnx.Intermediate, "hidden", module(x))
        return module.hidden[0].mean(axis=0).astype(jnp.bfloat16)

    rng = np.random.default_rng(0)
    texts = [rng.normal(size=(n, 3)).astype(np.float32) for n in (2, 5, 2)]
    found = gx.example_embeddings(mean, texts)
    assert found.dtype == np.float32
    expected = [np.asarray(mean(x), np.float32) for x in texts]
    np.testing.assert_allclose(found, expected, rtol=2**-7)  # of 8 bits, the last


def test_embeddings_are_kept(tmp_path):
    kept = {"identity": "encoder-1", "out": tmp_path}
    first = gx.example_embeddings(lambda e: e["x"], DATA, **kept)
    np.testing.assert_array_equal(first, DATA["x"])
    again = gx.example_embeddings(lambda e: 2 * e["x"], DATA, **kept)
    np.testing.assert_array_equal(again, first)  # the identity says it is the same


def test_refuses_what_is_no_embedding():
    with pytest.raises(InputError, match="one vector of floats for one example"):
        gx.example_embeddings(lambda e: e["x"][None], DATA)
    with pytest.raises(InputError, match="one vector of floats for one example"):
        gx.example_embeddings(lambda e: (e["x"], e["x"]), DATA)
    with pytest.raises(InputError, match="what fn returns has str"):
        gx.example_embeddings(lambda e: "text", DATA)
    bad = DATA["x"].copy()
    bad[6] = np.nan
    with pytest.raises(
        NumericalError, match=r"embedding of example 7 has nan \(1 of 21"
    ):
        gx.example_embeddings(lambda x: x, bad)


@pytest.mark.parametrize("identity", [None, "a"])
def test_refuses_embeddings_of_two_lengths(identity, tmp_path):
    """NumPy would repeat a row of one number over three."""
    examples = [np.full(n, n, np.float32) for n in (1, 3, 1, 3)]
    with pytest.raises(InputError, match=r"embedding of example 2 .*\(3,\).*\(1,\)"):
        gx.example_embeddings(lambda x: x, examples, identity=identity, out=tmp_path)


def test_refuses_arguments_of_a_loss_that_are_no_dict():
    no_dict = lambda batch: batch["x"]
    case = gx.nnx_loss(NnxNet(nnx.Rngs(0)), batched_loss, no_dict, nnx.Param)
    with pytest.raises(InputError, match=r"prepare must return .* dict, got float32"):
        gx.example_gradients(*case, DATA, has_aux=True)


def test_a_subset_has_the_raw_rows_in_order():
    source = [f"row {i}" for i in range(10)]
    subset = gx.Subset(source, np.array([7, 0, 3], np.int32))
    assert list(subset) == ["row 7", "row 0", "row 3"]
    assert [subset[i] for i in range(len(subset))] == list(subset)
    with pytest.raises(IndexError):
        subset[3]
    other = gx.Subset(source, [7, 0, 4])
    assert repr(subset) == repr(gx.Subset(source, [7, 0, 3])) != repr(other)


@pytest.mark.parametrize(
    ("source", "indices", "options", "message"),
    [
        (iter([1]), [0], {}, "a length and rows by number, got list_iterator"),
        ([1, 2], [2], {}, "index 2 is no row of the source, which has 2"),
        ([1, 2], [-1], {}, "index -1 is no row"),
        ([1, 2], [1, 1], {}, "index 1 is given 2 times"),
        ([1, 2], [True, False], {}, "one list of row numbers, got bool"),
        ([1, 2], [0.0], {}, "got float64"),
        ([1, 2], [], {}, "got float64 of shape"),
        ([1, 2], [[1], [2, 3]], {}, "got lists of several lengths"),
        ([1, 2], [[0, 1]], {}, r"got int64 of shape \(1, 2\)"),
        ({0: 1, 1: 2}, [0], {}, "rows by number, got dict"),
        ([1, 2], [0], {"batch_size": 0}, "batch_size must be .* at least 1, got 0"),
        ([1, 2], [0], {"batch_size": -3}, "batch_size must be .*, got -3"),
        ([1, 2], [0], {"batch_size": 1.0}, "batch_size must be .*, got 1.0"),
        ([1] * 20, range(10), {"batch_size": 16}, "give 0 steps of 10 rows"),
    ],
)
def test_refuses_what_is_no_subset(source, indices, options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    with pytest.raises(InputError, match=message):
        gx.Subset(source, indices, **options)
