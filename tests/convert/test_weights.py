"""Tensors by name: every one has its place, comes back bit by bit, and is missed where it lacks."""

import jax
import numpy as np
import pytest

from tests.convert import release
from tests.convert.test_parity import share_pools
from unnas_jax.config import schema as config_lib
from unnas_jax.convert import params_from_torch, params_to_torch
from unnas_jax.core.errors import UserError


@pytest.fixture(scope="module")
def config():
    c = config_lib.search()
    c.network.update(width=4, cells=3, nodes=2)
    return c


@pytest.fixture(scope="module")
def tensors():
    """A supernet of the release; all edges of a source have the same statistics of poolings."""
    w = release.Tensors(6)
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64))
    release.supernet(w, x, width=4, depth=3, nodes=2, cifar=False, classes=4)
    share_pools(w.values)
    return w.values


def equal(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        np.testing.assert_array_equal(found[name], value, name)


def test_a_supernet_comes_back_bit_by_bit(tensors, config):
    variables = params_from_torch(tensors, config)
    back = params_to_torch(variables, config)
    # The reference asks for the statistics of a norm before the others of the same module.
    assert back.keys() == tensors.keys()
    equal(back, {name: tensors[name] for name in back})
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("key", "value"),
    [("partial_channels", 2), ("auxiliary_skip", True), ("affine", True)],
)
def test_other_supernets_are_refused(tensors, config, key, value):
    other = config.copy_and_resolve_references()
    other.network[key] = value
    with pytest.raises(UserError, match=f"config.network.{key}={value}: the PyTorch release has"):
        params_from_torch(tensors, other)


def test_what_was_found_here_comes_back_bit_by_bit(tensors, config):
    rng = np.random.default_rng(8)
    here = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32),
        {k: v for k, v in params_from_torch(tensors, config).items() if k != "counters"},
    )
    there = params_to_torch(here, config)
    assert {int(v) for name, v in there.items() if name.endswith("tracked")} == {0}
    again = params_from_torch(there, config)
    del again["counters"]
    assert jax.tree.structure(again) == jax.tree.structure(here)
    jax.tree.map(np.testing.assert_array_equal, again, here)


def test_every_number_of_a_tensor_has_a_place_of_its_own(tensors, config):
    """Distinct numbers go in; each comes out as often as it went in, here and back."""
    numbers, start = {}, 0
    for name, value in tensors.items():
        numbers[name] = value
        if value.dtype == np.float32:
            numbers[name] = np.arange(start, start + value.size, dtype=np.float32)
            numbers[name] = numbers[name].reshape(value.shape)
            start += value.size
    assert start < 2**24
    share_pools(numbers)
    variables = params_from_torch(numbers, config)
    del variables["counters"]
    inside = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(variables)])
    outside = np.unique(np.concatenate([v.ravel() for v in numbers.values() if v.ndim]))
    np.testing.assert_array_equal(np.sort(inside), outside)


@pytest.mark.parametrize("name", ["net_.stem0.3.weight", "net_.cells.1._ops.4._ops.7.op.2.weight"])
def test_a_missing_tensor_is_named(name, tensors, config):
    rest = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(UserError, match=f"{name} is missing"):
        params_from_torch(rest, config)


def test_an_extra_tensor_is_named(tensors, config):
    with pytest.raises(UserError, match=r"net_.surplus.weight \(and 1 more\) has no place"):
        extra = {"net_.surplus.weight": np.zeros(3, np.float32), "x": np.zeros(1, np.float32)}
        params_from_torch({**tensors, **extra}, config)


@pytest.mark.parametrize(
    "value, words",
    [
        (np.zeros((4, 2, 3), np.float32), "has the shape (4, 2, 3), and in this network (4, 2, 3"),
        (np.zeros((2, 4, 3, 3), np.float32), "has the shape (2, 4, 3, 3), and in this network (4"),
        (np.zeros((4, 2, 3, 3), np.int64), "is of int64"),
    ],
)
def test_a_misshapen_tensor_is_named(value, words, tensors, config):
    with pytest.raises(UserError) as error:
        params_from_torch({**tensors, "net_.stem0.3.weight": value}, config)
    assert "net_.stem0.3.weight" in str(error.value) and words in str(error.value)
    assert "\n" not in str(error.value)


def test_counters_may_be_absent(tensors, config):
    old = {name: v for name, v in tensors.items() if not name.endswith("num_batches_tracked")}
    assert "counters" not in params_from_torch(old, config)


def test_shared_statistics_must_agree(tensors, config):
    name = "net_.cells.0._ops.2._ops.1.1.running_mean"  # Edges 0 and 2 leave the same state.
    first = "net_.cells.0._ops.0._ops.1.1.running_mean"
    rounded = {**tensors, name: tensors[name] * np.float32(1 + 1e-6)}
    found = params_from_torch(rounded, config)["batch_stats"]["cell_0"]["source_0"]["bn_pool"]
    np.testing.assert_array_equal(found["mean"][:4], tensors[first])
    with pytest.raises(UserError, match=f"{name} differs by up to 1"):
        params_from_torch({**tensors, name: tensors[name] + 1}, config)


def test_variables_of_another_network(tensors, config):
    variables = params_from_torch(tensors, config)
    short = {**variables, "params": {k: v for k, v in variables["params"].items() if k != "head"}}
    with pytest.raises(UserError, match="head"):
        params_to_torch(short, config)
    with pytest.raises(UserError, match="params/odd has no place"):
        odd = {**variables["params"], "odd": np.zeros(1, np.float32)}
        params_to_torch({**variables, "params": odd}, config)


def test_operations_that_the_release_does_not_have(tensors, config):
    other = config.copy_and_resolve_references()
    other.network.operations = ("skip_connect", "sep_conv_3x3")
    with pytest.raises(UserError, match="network.operations: the PyTorch release has only"):
        params_from_torch(tensors, other)
    training = config_lib.training()
    cell = "noise:0,skip_connect:1"
    training.network.update(width="4", cells=3, genotype=f"{cell}+{cell}")
    with pytest.raises(UserError, match="the PyTorch release has no operation 'noise'"):
        params_from_torch(tensors, training)
