"""The network: its sizes, and its outputs against NumPy in float64."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from tests.spaces import quick
from tests.spaces.nasbench101.cells import drawn
from unnas_jax.layers.heads import ImageHead, PixelHead
from unnas_jax.spaces.nasbench101.network import Network, vertex_channels
from unnas_jax.spaces.nasbench101.spec import Spec, parse

EXAMPLE = parse(
    "0111010-0000001-0000001-0000100-0000001-0000001-0000000:"
    "conv1x1,conv3x3,conv3x3,conv3x3,maxpool3x3"
)
"""The cell that the benchmark's documentation builds."""


def shapes_of(network: Network, *size: int) -> tuple[Any, Any]:
    """The outputs' shape and the variables' shapes for one input of a size."""
    x = jax.ShapeDtypeStruct((1, *size), jnp.float32)
    (outputs, auxiliary), variables = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=True), x
    )
    assert auxiliary is None
    return outputs, variables


def test_the_benchmark_s_example_has_its_parameters() -> None:
    outputs, variables = shapes_of(Network(EXAMPLE, ImageHead(10)), 32, 32, 3)
    assert outputs.shape == (1, 10)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 2_694_282


@pytest.mark.parametrize(
    ("stem", "size", "expected"), [("cifar", 32, 8), ("cifar", 15, 3), ("imagenet", 224, 7)]
)
def test_sides_and_channels(stem: str, size: int, expected: int) -> None:
    cell = parse("0110-0001-0001-0000:conv1x1,conv3x3")
    network = Network(cell, PixelHead(5), width=6, modules=2, stem=stem)
    outputs, variables = shapes_of(network, size, size, 1)
    assert outputs.shape == (1, expected, expected, 5)
    stems = [
        variables["params"][name]["convolution"]["conv"]["kernel"].shape
        for name in sorted(variables["params"])
        if name.startswith("stem")
    ]
    assert stems == (
        [(3, 3, 1, 6)] if stem == "cifar" else [(3, 3, 1, 3), (3, 3, 3, 6), (3, 3, 6, 6)]
    )
    # The modules keep the channels but for the first of a stack.
    kernels = {
        name: layers["input_op_1"]["convolution"]["conv"]["kernel"].shape
        for name, layers in variables["params"].items()
        if name.startswith("stack")
    }
    assert kernels == {
        f"stack_{stack}_module_{module}": (
            1,
            1,
            6 * 2 ** (stack - (module == 0 and stack > 0)),
            3 * 2**stack,  # Two vertices share the output.
        )
        for stack in range(3)
        for module in range(2)
    }


def test_channels_are_shared_and_cut_by_one_at_most() -> None:
    cut = 0
    for spec in drawn(400, seed=0):
        last = len(spec.matrix) - 1
        channels = vertex_channels(spec.matrix, 5, 13)
        assert (channels[0], channels[last]) == (5, 13)
        feeding = [channels[v] for v in range(1, last) if spec.matrix[v][last]]
        assert not feeding or (sum(feeding) == 13 and feeding == sorted(feeding, reverse=True))
        for source in range(1, last):
            for target in range(source + 1, last):
                if spec.matrix[source][target]:
                    assert 0 <= channels[source] - channels[target] <= 1
                    cut += channels[source] > channels[target]
    assert cut > 0


def _conv_bn_relu(x: np.ndarray, layer: Mapping[str, Any], stride: int = 1) -> np.ndarray:
    kernel = layer["convolution"]["conv"]["kernel"]
    pad = kernel.shape[0] // 2
    x = reference.conv2d(x, kernel, (stride,) * 2, (pad,) * 2)
    return reference.relu(reference.batch_norm(x, layer["bn"]))


def _module(spec: Spec, x: np.ndarray, channels: int, params: Mapping[str, Any]) -> np.ndarray:
    """The value of a module, vertex by vertex from the output backwards."""
    last = len(spec.matrix) - 1
    into_last = [v for v in range(1, last) if spec.matrix[v][last]]

    def room(vertex: int) -> int:
        if vertex in into_last:
            place, count = into_last.index(vertex), len(into_last)
            return len(range(place, channels, count))
        return max(room(v) for v in range(vertex + 1, last) if spec.matrix[vertex][v])

    def value(vertex: int) -> np.ndarray:
        total = np.zeros((*x.shape[:3], room(vertex)))
        for source in range(vertex):
            if spec.matrix[source][vertex]:
                total += (
                    value(source)[..., : room(vertex)]
                    if source
                    else _conv_bn_relu(x, params[f"input_op_{vertex}"])
                )
        if spec.operations[vertex] == "maxpool3x3":
            return reference.pool(total, "max", 3, 1, 1)
        layer = params[f"vertex_op_{vertex}"]
        side = int(spec.operations[vertex][-1])
        assert layer["convolution"]["conv"]["kernel"].shape[:2] == (side, side)
        return _conv_bn_relu(total, layer)

    output = np.zeros((*x.shape[:3], channels))
    if spec.matrix[0][last]:
        output += _conv_bn_relu(x, params[f"input_op_{last}"])
    if into_last:
        output += np.concatenate([value(v) for v in into_last], axis=-1)
    return output


CELLS = {
    "input and output": "01-00:",
    "straight edge": "0101-0011-0001-0000:conv3x3,maxpool3x3",
    # Vertex 1 has 3 of 5 channels and feeds vertex 2, which has 2.
    "cut": "0110-0011-0001-0000:conv1x1,conv3x3",
    "every vertex, not pruned": "01101000-00010101-00000001-00000001-00000010-00000001-"
    "00000000-00000000:conv3x3,maxpool3x3,conv1x1,conv1x1,maxpool3x3,conv3x3",
    **{f"drawn {k}": str(spec) for k, spec in enumerate(drawn(3, seed=5))},
}


@pytest.mark.parametrize("name", CELLS)
def test_against_numpy(name: str) -> None:
    spec = parse(CELLS[name])
    network = Network(spec, ImageHead(4), width=5, stacks=2, modules=1 + (name == "cut"))
    x = np.random.default_rng(0).standard_normal((3, 7, 6, 2)).astype(np.float32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), x, train=False))
    variables = reference.random_like(shapes, seed=1, dtype=np.float32)
    run = quick.jit(lambda v, x: network.apply(v, x, train=True, mutable=["batch_stats"])[0][0])
    params, pruned = variables["params"], spec.pruned()
    y = _conv_bn_relu(x.astype(np.float64), params["stem_0"])
    for stack in range(2):
        if stack:
            y = reference.pool(y, "max", 2, 2, 0)
        for module in range(network.modules):
            y = _module(pruned, y, 5 * 2**stack, params[f"stack_{stack}_module_{module}"])
    assert y.shape == (3, 3, 3, 10)
    linear = params["head"]["linear"]
    expected = y.mean(axis=(1, 2)) @ linear["kernel"] + linear["bias"]
    np.testing.assert_allclose(run(variables, x), expected, rtol=2e-4, atol=2e-4)


def test_drop_path_is_refused() -> None:
    network = Network(EXAMPLE, ImageHead(4), width=8)
    with pytest.raises(ValueError, match="drop path"):
        network.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32), True, drop_path=0.1)
