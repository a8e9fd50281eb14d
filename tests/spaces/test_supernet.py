"""Tests that the supernet, computed by source state, is every operation on every edge, summed.

The chain of definitions: the fused forms equal the formulation `per_edge`, and an edge of both
equals NumPy (`tests.reference`); the stem and what stands before a cell are in `test_blocks`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from tests.spaces import plain as plain_lib
from tests.spaces import quick
from unnas_jax.core import sharding
from unnas_jax.layers.counting import parameters
from unnas_jax.layers.heads import ImageHead
from unnas_jax.spaces.darts import fused, per_edge, supernet
from unnas_jax.spaces.darts.candidates import OPERATIONS

WIDTH, BATCH = 4, 8


class Features(nn.Module):
    """A head that shows the features as they are."""

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        return features


class Case(NamedTuple):
    """A supernet's shape; a single reduction makes two cells enough."""

    stem: str
    cells: int
    nodes: int
    size: int
    single_reduction: bool

    def settings(self) -> dict[str, Any]:
        return {
            "width": WIDTH,
            "cells": self.cells,
            "nodes": self.nodes,
            "stem": self.stem,
            "single_reduction": self.single_reduction,
        }

    def arguments(self, dtype: Any) -> tuple[Any, Any, Any, Any]:
        """Random parameters, running statistics, inputs and alphas."""
        rng = np.random.default_rng(0)
        inputs = rng.standard_normal((BATCH, self.size, self.size, 3)).astype(dtype)
        edges = self.nodes * (self.nodes + 3) // 2
        alphas = {
            kind: rng.standard_normal((edges, len(OPERATIONS))).astype(dtype)
            for kind in ("normal", "reduce")
        }
        module = supernet.Supernet(**self.settings(), head=Features())
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), inputs, alphas, True))
        variables = reference.random_like(shapes, seed=1, dtype=dtype)
        return variables["params"], variables["batch_stats"], inputs, alphas

    def by_source(self, dense: bool, train: bool, dtype: Any, **settings: bool) -> Any:
        """(params, stats, inputs, alphas) to (outputs, new stats), as the package does it."""
        settings = {**self.settings(), **settings}
        form = "dense" if dense else "depthwise"
        module = supernet.Supernet(**settings, formulation=form, head=Features(), dtype=dtype)

        def function(params: Any, stats: Any, inputs: Any, alphas: Any) -> tuple[Any, Any]:
            variables = {"params": params, "batch_stats": stats}
            outputs, new = module.apply(variables, inputs, alphas, train, mutable=["batch_stats"])
            return outputs, new["batch_stats"]

        return function

    def by_edge(self, train: bool, **settings: bool) -> Any:
        """The same by the plain definition, in float64."""
        settings = {**self.settings(), **settings}
        module = supernet.Supernet(
            **settings, formulation="per_edge", head=Features(), dtype=jnp.float64
        )

        def function(params: Any, stats: Any, inputs: Any, alphas: Any) -> tuple[Any, Any]:
            variables = plain_lib.of_fused(params, stats, self.nodes)
            outputs, new = module.apply(variables, inputs, alphas, train, mutable=["batch_stats"])
            return outputs, plain_lib.stats_to_fused(new["batch_stats"], self.nodes)

        return function


# 9 -> 5 pixels behind the CIFAR stem; 20 -> 5 and 3 -> 2 -> 1 behind the ImageNet stem, which
# halves one of the first cell's inputs: both of its cells reduce, and reduce an input before.
SMALL = Case("cifar", cells=2, nodes=2, size=9, single_reduction=True)
LARGE = Case("imagenet", cells=2, nodes=3, size=20, single_reduction=False)


def with_gradients(function: Any) -> Any:
    """Adds the gradients of a random projection of the outputs."""

    def projected(params: Any, stats: Any, inputs: Any, alphas: Any) -> tuple[Any, Any]:
        outputs, new = function(params, stats, inputs, alphas)
        weights = np.random.default_rng(2).standard_normal(outputs.shape)
        return jnp.sum(outputs * weights), (outputs, new)

    return jax.value_and_grad(projected, argnums=(0, 2, 3), has_aux=True)


def assert_trees_close(actual: Any, expected: Any, tolerance: float) -> None:
    """Every value within the tolerance of its array's largest."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = np.abs(b).max()
        assert scale > 0, f"{jax.tree_util.keystr(path)} is all zeros: nothing is compared"
        np.testing.assert_allclose(
            a, b, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path)
        )


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """What the plain definition gives in float64, and what it was given."""
    with jax.enable_x64(True):
        small, large = SMALL.arguments(np.float64), LARGE.arguments(np.float64)
        return {
            "small arguments": small,
            "small": quick.jit(with_gradients(SMALL.by_edge(train=True)))(*small),
            "large arguments": large,
            "large": quick.jit(LARGE.by_edge(train=True))(*large),
            "large eval": quick.jit(LARGE.by_edge(train=False))(*large),
        }


@pytest.fixture
def dense(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether convolutions are dense, by the form's name; TPUs have their own for few images."""
    if request.param == "tpu":
        monkeypatch.setattr(sharding, "platform", lambda: "tpu")
    return bool(request.param != "depthwise")


every_form = pytest.mark.parametrize("dense", ["depthwise", "dense", "tpu"], indirect=True)


@pytest.mark.parametrize(
    ("dense", "rematerialise"),
    [("depthwise", True), ("dense", False), ("tpu", False)],
    indirect=["dense"],
)
def test_values_statistics_and_gradients(
    plain: dict[str, Any], dense: bool, rematerialise: bool
) -> None:
    with jax.enable_x64(True):
        by_source = SMALL.by_source(dense, True, jnp.float64, rematerialise=rematerialise)
        function = quick.jit(with_gradients(by_source))
        actual = function(*plain["small arguments"])
        assert actual[0][1][0].dtype == jnp.float64
        assert_trees_close(actual, plain["small"], 1e-9)


@every_form
@pytest.mark.parametrize("train", [True, False])
def test_deeper_network(plain: dict[str, Any], dense: bool, train: bool) -> None:
    with jax.enable_x64(True):
        actual = quick.jit(LARGE.by_source(dense, train, jnp.float64))(*plain["large arguments"])
        assert_trees_close(actual, plain["large" if train else "large eval"], 1e-9)
    outputs, statistics = actual
    assert outputs.shape == (BATCH, 1, 1, 3 * 4 * WIDTH)
    if not train:
        assert_trees_close(statistics, plain["large arguments"][1], 0)


def of_edge(variables: Any, position: int, channels: int) -> dict[str, Any]:
    """The variables of one of the edges that leave a state, as a `MixedOperation`."""
    return {
        "params": plain_lib.params_of_edge(variables["params"], position),
        "batch_stats": plain_lib.stats_of_edge(variables["batch_stats"], position, channels),
    }


@every_form
@pytest.mark.parametrize("stride", [1, 2])
def test_mixed_edge_equals_numpy(stride: int, dense: bool) -> None:
    channels, position = 4, 1
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 6, 7, channels))
    weights = rng.uniform(0.05, 1.0, len(OPERATIONS))
    with jax.enable_x64(True):
        module = fused.SourceEdges(2, channels, stride, dense, dtype=jnp.float64)
        both = np.stack([weights, weights])
        state = x if dense else np.transpose(x, (3, 1, 2, 0))
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), state, both, True))
        variables = reference.random_like(shapes, seed=1)
        kernels = plain_lib.kernels_of_edge(variables["params"], position)
        edge = per_edge.MixedOperation(OPERATIONS, channels, stride, dtype=jnp.float64)
        by_edge, _ = quick.jit(lambda v: edge.apply(v, x, weights, True, mutable=["batch_stats"]))(
            of_edge(variables, position, channels)
        )
        by_source, _ = quick.jit(
            lambda v: module.apply(v, state, both, True, mutable=["batch_stats"])
        )(variables)
    expected = reference.mixed_edge(x, dict(zip(OPERATIONS, weights, strict=True)), kernels, stride)
    np.testing.assert_allclose(by_edge, expected, rtol=1e-10, atol=1e-10)
    by_source = np.asarray(by_source[position])
    if not dense:
        by_source = np.transpose(by_source, (3, 1, 2, 0))
    np.testing.assert_allclose(by_source, expected, rtol=1e-10, atol=1e-10)


@every_form
def test_alpha_gradients_in_float32_far_from_zero(dense: bool) -> None:
    """Of one state whose mean is 30 deviations, against the same in float64."""
    rng = np.random.default_rng(0)
    x = 30 + rng.standard_normal((3, 6, 7, 4))
    weights = rng.uniform(0.05, 1.0, (2, len(OPERATIONS)))
    cotangents = rng.standard_normal((2, *x.shape))
    if not dense:
        x, cotangents = (np.moveaxis(values, (-1, -4), (-4, -1)) for values in (x, cotangents))

    def gradient(dtype: Any) -> np.ndarray:
        module = fused.SourceEdges(2, 4, 1, dense, dtype=dtype)
        arrays = [np.asarray(values, dtype) for values in (x, weights, cotangents)]
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *arrays[:2], True))
        variables = reference.random_like(shapes, seed=1, dtype=dtype)

        def of(weights: Any, x: Any, cotangents: Any) -> Any:
            outputs, _ = module.apply(variables, x, weights, True, mutable=["batch_stats"])
            return jnp.sum(jnp.stack(outputs) * cotangents)

        found = quick.jit(jax.grad(of))(arrays[1], arrays[0], arrays[2])
        return np.asarray(found, np.float64)

    with jax.enable_x64(True):
        exact = gradient(np.float64)
    error = np.abs(gradient(np.float32) - exact).max() / np.abs(exact).max()
    assert error < 2e-6


# Dense convolutions join three edges of 4 channels, two of three edges of 48, and none of 64.
@pytest.mark.parametrize("channels", [48, 64])
def test_edges_of_many_channels_are_grouped(channels: int) -> None:
    edges, rng = 3, np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 4, channels))
    weights = rng.uniform(0.05, 1.0, (edges, len(OPERATIONS)))
    cotangents = rng.standard_normal((edges, *x.shape))
    with jax.enable_x64(True):
        module = fused.SourceEdges(edges, channels, 1, True, dtype=jnp.float64)
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, weights, True))
        variables = reference.random_like(shapes, seed=1)

        def by_source(x: Any, weights: Any) -> Any:
            outputs, _ = module.apply(variables, x, weights, True, mutable=["batch_stats"])
            return jnp.stack(outputs)

        def by_edge(x: Any, weights: Any) -> Any:
            edge = per_edge.MixedOperation(OPERATIONS, channels, 1, dtype=jnp.float64)
            outputs = []
            for k in range(edges):
                own = of_edge(variables, k, channels)
                output, _ = edge.apply(own, x, weights[k], True, mutable=["batch_stats"])
                outputs.append(output)
            return jnp.stack(outputs)

        def both(function: Any) -> Any:
            def run(x: Any, weights: Any) -> Any:
                outputs, pullback = jax.vjp(function, x, weights)
                return outputs, pullback(cotangents)

            return quick.jit(run)(x, weights)

        assert_trees_close(both(by_source), both(by_edge), 1e-9)


@pytest.fixture(scope="module")
def in_float32() -> tuple[Any, Any]:
    """Arguments in float32 and what one device makes of them."""
    arguments = LARGE.arguments(np.float32)
    return arguments, quick.jit(LARGE.by_source(False, True, jnp.float32))(*arguments)


def test_float32_is_close(plain: dict[str, Any], in_float32: tuple[Any, Any]) -> None:
    _, actual = in_float32
    assert actual[0].dtype == jnp.float32
    assert_trees_close(actual, plain["large"], 1e-3)


def test_bfloat16_keeps_statistics_in_float32(plain: dict[str, Any]) -> None:
    arguments = LARGE.arguments(np.float32)
    outputs, kept = quick.jit(LARGE.by_source(False, False, jnp.bfloat16))(*arguments)
    assert outputs.dtype == jnp.bfloat16
    assert {value.dtype for value in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    expected = np.asarray(plain["large eval"][0])
    error = np.asarray(outputs, np.float64) - expected
    assert 1e-5 < np.linalg.norm(error) / np.linalg.norm(expected) < 0.05


def test_batch_norm_is_global_over_devices(in_float32: tuple[Any, Any]) -> None:
    (params, stats, inputs, alphas), expected = in_float32
    mesh = sharding.data_mesh()
    assert mesh.size == BATCH
    everywhere = sharding.replicated(mesh)
    params, stats, alphas = jax.device_put((params, stats, alphas), everywhere)
    inputs = jax.device_put(inputs, sharding.split(mesh))
    outputs, new = quick.jit(LARGE.by_source(False, True, jnp.float32))(
        params, stats, inputs, alphas
    )
    assert len(outputs.sharding.device_set) == BATCH
    assert_trees_close((outputs, new), expected, 1e-4)


def test_parameter_count() -> None:
    module = supernet.Supernet(width=16, cells=8, nodes=4, stem="imagenet", head=ImageHead(4))
    alphas = jax.eval_shape(lambda: supernet.init_alphas(jax.random.key(0), 4, 1e-3))
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x, a: module.init(jax.random.key(0), x, a, True), images, alphas)
    assert parameters(shapes["params"]) == 1_929_900


def test_initial_alphas() -> None:
    alphas = supernet.init_alphas(jax.random.key(0), 4, 1e-3)
    assert set(alphas) == {"normal", "reduce"}
    for value in alphas.values():
        assert value.shape == (14, 8)
        assert value.dtype == jnp.float32
        assert 0.7e-3 < np.std(value) < 1.3e-3
    assert not np.any(alphas["normal"] == alphas["reduce"])


def test_initial_weights_stay_in_their_bounds() -> None:
    settings = {**SMALL.settings(), "width": 16}
    module = supernet.Supernet(**settings, head=ImageHead(4))
    alphas = supernet.init_alphas(jax.random.key(0), 2, 1e-3)
    inputs = jax.ShapeDtypeStruct((1, 9, 9, 3), jnp.float32)
    params = module.lazy_init(jax.random.key(1), inputs, alphas, train=True)["params"]
    for path, value in jax.tree.leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        shape = value.shape
        if name.endswith("['scale']") or "['bn_" in name:
            assert np.all(np.asarray(value) == (1.0 if "scale" in name else 0.0)), name
            continue
        if "depthwise" in name:
            fan_in = shape[0] * shape[1]
        elif "pointwise" in name:
            fan_in = shape[1]
        elif "skip_connect" in name:
            fan_in = shape[0]
        elif name.endswith("['bias']"):
            fan_in = params["head"]["linear"]["kernel"].shape[0]
        else:
            fan_in = int(np.prod(shape[:-1]))
        largest = np.abs(np.asarray(value)).max() * fan_in**0.5
        assert largest <= 1 + 1e-6, name
        assert largest > 0.9 or value.size < 16, name


@pytest.mark.parametrize(("images", "expected"), [(127, True), (128, False)])
def test_few_images_on_a_tpu_leave_the_lanes_to_channels(
    images: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fused.SourceEdges(2, 4, 1, dense=True)
    x, weights = np.zeros((images, 4, 4, 4), np.float32), np.ones((2, len(OPERATIONS)), np.float32)

    def constrained() -> bool:
        variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x, weights, True))
        jaxpr = jax.make_jaxpr(module.apply, static_argnums=3)(variables, x, weights, False)
        return "layout_constraint" in str(jaxpr)

    assert not constrained()
    monkeypatch.setattr(sharding, "platform", lambda: "tpu")
    assert constrained() == expected
