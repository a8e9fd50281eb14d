"""Tests of stems, reductions, batch norm and initial values against direct definitions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from tests.spaces import quick
from unnas_jax.core import sharding
from unnas_jax.layers import blocks as layers


def run(module: nn.Module, x: np.ndarray, *, train: bool, seed: int = 1) -> tuple[Any, Any, Any]:
    """Variables, outputs in float64, and the running statistics after them."""
    with jax.enable_x64(True):
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train))
        variables = reference.random_like(shapes, seed)
        apply = quick.jit(lambda v, x: module.apply(v, x, train, mutable=["batch_stats"]))
        outputs, new = jax.tree.map(np.asarray, apply(variables, x))
    return variables, outputs, new["batch_stats"]


class Normalisation(nn.Module):
    """A batch norm as the networks call it."""

    affine: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return layers.batch_norm(train=train, affine=self.affine, dtype=x.dtype, name="bn")(x)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_and_its_running_statistics(train: bool, affine: bool) -> None:
    x = np.random.default_rng(0).normal(2.0, 3.0, (4, 3, 5, 6))
    variables, outputs, new = run(Normalisation(affine), x, train=train)
    running = variables["batch_stats"]["bn"]
    expected = reference.batch_norm(
        x, variables["params"]["bn"] if affine else None, None if train else running
    )
    np.testing.assert_allclose(outputs, expected, rtol=1e-10, atol=1e-10)
    after = reference.updated(running, x) if train else running
    for name in ("mean", "var"):
        np.testing.assert_allclose(new["bn"][name], after[name], rtol=1e-10)
    assert ("params" in variables) == affine


@pytest.mark.parametrize(("axis", "devices"), [(-1, 1), (0, 1), (-1, 4)])
def test_batch_norm_of_parts_keeps_its_digits_far_from_zero(axis: int, devices: int) -> None:
    """In float32, against float64, where means are 30 deviations; the gradients too.

    E[x^2] - E[x]^2 would lose three digits of the variance.
    """
    shape = (8, 6, 5, 4)
    rng = np.random.default_rng(0)
    x, cotangent = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    x += 30
    module = layers.BatchNormOfParts(axis=axis)
    channels = shape[axis]
    factor = rng.uniform(0.5, 2, channels).astype(np.float32)
    # As after some steps of a search: running means are near those of a batch.
    kept = {"mean": np.full(channels, 29.5, np.float32), "var": np.ones(channels, np.float32)}

    def function(x: Any, cotangent: Any) -> Any:
        def normalised(x: Any, factor: Any) -> Any:
            (y,), new = module.apply(
                {"batch_stats": kept}, [x], True, [factor], mutable=["batch_stats"]
            )
            return y, new["batch_stats"]

        _, pullback, new = jax.vjp(normalised, x, jnp.asarray(factor), has_aux=True)
        of_x, of_factor = pullback(cotangent)
        return of_x, new, sharding.total(of_factor)

    mesh = sharding.data_mesh(jax.devices()[:devices])
    rows, same = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    if devices > 1:
        function = jax.shard_map(
            function, mesh=mesh, in_specs=rows, out_specs=(rows, same, same), check_vma=False
        )
    gradient, new, of_factor = jax.jit(function)(x, cotangent)

    others = tuple(k for k in range(4) if k != axis % 4)
    x64, w = x.astype(np.float64), cotangent.astype(np.float64)
    mean, variance = x64.mean(others, keepdims=True), x64.var(others, keepdims=True)
    y = (x64 - mean) / np.sqrt(variance + layers.BN_EPSILON)
    projected = w - w.mean(others, keepdims=True) - y * (w * y).mean(others, keepdims=True)
    along = np.expand_dims(factor, others)
    expected = along * projected / np.sqrt(variance + layers.BN_EPSILON)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(of_factor, (w * y).sum(others), rtol=0, atol=2e-3)
    for name, batch in (("mean", mean), ("var", variance)):
        found = (np.asarray(new[name], np.float64) - 0.9 * kept[name]) / 0.1
        scale = np.abs(batch).max()
        np.testing.assert_allclose(found, batch.reshape(-1), rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", ["cifar", "imagenet"])
def test_stem(kind: str, train: bool) -> None:
    x = np.random.default_rng(0).standard_normal((2, 18, 13, 3))
    variables, (first, second), new = run(layers.Stem(kind, 4), x, train=train)
    params, running = variables["params"], variables["batch_stats"]
    convolved = {}

    def conv_bn(x: np.ndarray, k: int, stride: int) -> np.ndarray:
        kernel = params[f"conv_{k}"]["conv"]["kernel"]
        convolved[k] = reference.conv2d(x, kernel, (stride, stride), (1, 1))
        statistics = None if train else running[f"bn_{k}"]
        return reference.batch_norm(convolved[k], params[f"bn_{k}"], statistics)

    if kind == "cifar":
        expected = (conv_bn(x, 0, 1),) * 2
        assert first.shape == (2, 18, 13, 12)
    else:
        half = conv_bn(x, 0, 2)
        quarter = conv_bn(reference.relu(half), 1, 2)
        expected = (quarter, conv_bn(reference.relu(quarter), 2, 2))
        assert half.shape[-1] == 2
        assert first.shape == (2, 5, 4, 4)
        assert second.shape == (2, 3, 2, 4)
    np.testing.assert_allclose(first, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second, expected[1], rtol=1e-5, atol=1e-5)
    for k, y in convolved.items():
        after = reference.updated(running[f"bn_{k}"], y) if train else running[f"bn_{k}"]
        np.testing.assert_allclose(new[f"bn_{k}"]["mean"], after["mean"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(new[f"bn_{k}"]["var"], after["var"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_factorized_reduction_changes_channels(size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((2, *size, 3))
    module = layers.FactorizedReduction(8, affine=False, dtype=jnp.float64)
    variables, outputs, _ = run(module, x, train=True)
    kernels = [variables["params"][f"conv_{k}"]["conv"]["kernel"][0, 0] for k in (1, 2)]
    expected = reference.batch_norm(reference.factorized_reduction(x, *kernels))
    assert outputs.shape == (2, -(-size[0] // 2), -(-size[1] // 2), 8)
    np.testing.assert_allclose(outputs, expected, rtol=1e-10, atol=1e-10)


def test_initial_values_are_uniform_in_the_bound() -> None:
    init = layers.uniform_fan_in(25)
    values = np.asarray(init(jax.random.key(3), (100, 200)))
    assert values.dtype == np.float32
    assert np.abs(values).max() <= 0.2
    # A uniform variable's quantiles lie on a line.
    quantiles = np.quantile(values, np.linspace(0, 1, 11))
    np.testing.assert_allclose(quantiles, np.linspace(-0.2, 0.2, 11), atol=5e-3)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_initial_values_from_keys_of_four_words(impl: str) -> None:
    """Of the generators that `JAX_DEFAULT_PRNG_IMPL` can choose; every word counts."""
    init = layers.uniform_fan_in(9)
    words = jnp.arange(1, 5, dtype=jnp.uint32)
    draws = [init(jax.random.wrap_key_data(words.at[k].add(1), impl=impl), (10,)) for k in range(4)]
    draws.append(init(jax.random.wrap_key_data(words, impl=impl), (10,)))
    assert len({float(draw[0]) for draw in draws}) == 5
    assert all(float(jnp.abs(draw).max()) <= 1 / 3 for draw in draws)


def test_initial_values_depend_on_the_key_alone() -> None:
    init = layers.uniform_fan_in(9)
    values = np.asarray(init(jax.random.key(3), (5, 7)))
    np.testing.assert_array_equal(values, init(jax.random.key(3), (5, 7)))
    np.testing.assert_array_equal(values, jax.jit(lambda k: init(k, (5, 7)))(jax.random.key(3)))
    assert not np.any(values == np.asarray(init(jax.random.key(4), (5, 7))))


@pytest.mark.parametrize(
    ("cells", "dense", "expected"),
    [(8, False, (2, 5)), (14, False, (4, 9)), (20, False, (6, 13)), (12, True, (4,))],
)
def test_reductions(cells: int, dense: bool, expected: tuple[int, ...]) -> None:
    assert layers.reductions(cells, dense) == expected


def test_a_gradient_at_once_is_the_same_gradient_of_any_order() -> None:
    x = jnp.linspace(0.1, 1.5, 4)

    def value(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(layers.gradient_at_once(x**2)))

    # Of sin(x^2): 2 x cos(x^2), and the derivative of that.
    gradient = jax.grad(value)(x)
    np.testing.assert_allclose(gradient, 2 * x * jnp.cos(x**2), rtol=1e-6)
    second = jax.grad(lambda x: jnp.sum(jax.grad(value)(x)))(x)
    expected = 2 * jnp.cos(x**2) - 4 * x**2 * jnp.sin(x**2)
    np.testing.assert_allclose(second, expected, rtol=1e-5)
    assert "optimization_barrier" in str(jax.make_jaxpr(jax.grad(value))(x))
    assert "optimization_barrier" not in str(jax.make_jaxpr(value)(x))
