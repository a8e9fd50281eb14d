"""The networks: published sizes, outputs against NumPy in float64, and the supernet's equality."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.spaces.one_program import assert_same, network201
from unnas_jax.config.sections import NetworkSection
from unnas_jax.layers import counting
from unnas_jax.layers.heads import ImageHead
from unnas_jax.spaces.nasbench201 import space, spec
from unnas_jax.spaces.nasbench201.network import Cell, Network
from unnas_jax.spaces.nasbench201.spec import Spec


# Dong and Yang (2020), the ends of the range of sizes: 0.073 to 1.532 M parameters and 7.78 to
# 220.12 M multiply-adds, and the sums of the layers by hand.
@pytest.mark.parametrize(
    ("operation", "parameters", "multiply_adds"),
    [("nor_conv_3x3", 1_531_546, 220_119_680), ("skip_connect", 73_306, 7_783_040)],
)
def test_published_sizes(operation: str, parameters: int, multiply_adds: int) -> None:
    network = Network(Spec((operation,) * 6), ImageHead(10))
    counts = counting.count(network, counting.answer(network, (32, 32, 3)), train=False)
    assert (counts.parameters, counts.multiply_adds) == (parameters, multiply_adds)
    variables = jax.eval_shape(
        lambda x: network.init(jax.random.key(0), x, train=False), jnp.zeros((1, 32, 32, 3))
    )
    assert counting.parameters(variables["params"]) == parameters
    assert set(variables) == {"params", "batch_stats"}


def test_every_layer_is_counted() -> None:
    """One cell has all operations: the counts by layer are the sizes of the variables."""
    cell = spec.parse(
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
    )
    network = Network(cell, ImageHead(10), width=6, cells_each=2)
    variables = jax.eval_shape(
        lambda x: network.init(jax.random.key(0), x, train=False), jnp.zeros((1, 8, 8, 3))
    )
    by_name: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        by_name.setdefault(path[0].key, 0)
        by_name[path[0].key] += leaf.size
    counted: dict[str, int] = {}
    found = counting.count(network, counting.answer(network, (8, 8, 3)), train=False)
    for layer in found.layers:
        counted.setdefault(layer.name.split("/")[0], 0)
        counted[layer.name.split("/")[0]] += layer.parameters
    assert counted == by_name


def relu_conv_bn(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """By definition, in training mode with scale 1 and bias 0."""
    x, size = np.maximum(x, 0), kernel.shape[0]
    wide = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    out = sum(
        np.einsum("nhwc,cd->nhwd", wide[:, i : i + x.shape[1], j : j + x.shape[2]], kernel[i, j])
        for i in range(size)
        for j in range(size)
    )
    return (out - out.mean((0, 1, 2))) / np.sqrt(out.var((0, 1, 2)) + 1e-5)


def mean_pool(x: np.ndarray) -> np.ndarray:
    """3x3 means of the pixels that there are."""
    out = np.zeros_like(x)
    for i, j in np.ndindex(x.shape[1:3]):
        out[:, i, j] = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean((1, 2))
    return out


def test_a_cell_against_numpy() -> None:
    cell = spec.parse(
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"
    )
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3))
    module = Cell(cell, 3)
    variables = module.init(jax.random.key(0), jnp.asarray(x, jnp.float32), True)
    got, _ = module.apply(variables, jnp.asarray(x, jnp.float32), True, mutable=["batch_stats"])

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        kernel = variables["params"][name]["convolution"]["conv"]["kernel"]
        return relu_conv_bn(x, np.asarray(kernel, np.float64))

    first = layer("edge_0_1", x)
    second = mean_pool(x) + first
    expected = layer("edge_0_3", x) + layer("edge_2_3", second)
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("number", range(3))
def test_the_supernet_computes_what_a_cell_s_network_computes(number: int) -> None:
    """Outputs, gradients and running statistics of one program, for different cells."""
    assert_same(space.program(network201(spec.sample(3, 1)[number])))


def config(**network: Any) -> dict[str, Any]:
    """What the space looks at of a config."""
    own = {"width": "16", "auxiliary_weight": 0, "drop_path": 0, "stem": "cifar", "cells": 15}
    return NetworkSection.of({**own, "genotype": space.ANY, **network})


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"width": "fit"}, "give the channels of the stem, 16"),
        ({"cells": 14}, "use a multiple of 3"),
        ({"stem": "imagenet"}, "use 'cifar'"),
        ({"drop_path": 0.2}, "nor drop path; use --config.network.drop_path=0"),
        ({"genotype": "|none~0|"}, "1 nodes instead of 3"),
        ({"genotype": "no_such_file.json"}, "cannot read"),
    ],
)
def test_wrong_settings_are_told(network: dict[str, Any], words: str) -> None:
    from unnas_jax.core.errors import UserError

    space.validate(config())
    with pytest.raises(UserError, match=words):
        space.validate(config(**network))
