"""Tests that every operation of a discrete cell is the one that its name stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from tests.spaces import quick
from unnas_jax.core import sharding
from unnas_jax.spaces.darts.operations import BUILDERS

CHANNELS = 4
# An even and an odd side, so that a transposed stride or a wrong rounding shows.
SHAPE = (3, 6, 7, CHANNELS)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", sorted(set(BUILDERS) - {"noise"}))
def test_operation_equals_its_definition(name: str, stride: int) -> None:
    with jax.enable_x64(True):
        module = BUILDERS[name](
            channels=CHANNELS, stride=stride, affine=True, dtype=jnp.float64, name="op"
        )
        x = np.random.default_rng(0).standard_normal(SHAPE)
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, True))
        variables = reference.random_like(shapes, seed=1)
        run = quick.jit(lambda v, x: module.apply(v, x, True, mutable=["batch_stats"])[0])
        actual = np.asarray(run(variables, x))
    expected = reference.operation(name, x, variables.get("params", {}), stride)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


def noise(stride: int, x: jax.Array, seed: int) -> jax.Array:
    module = BUILDERS["noise"](channels=CHANNELS, stride=stride, affine=True, dtype=jnp.float32)
    drawn: jax.Array = module.apply({}, x, False, rngs={"noise": jax.random.key(seed)})
    return drawn


@pytest.mark.parametrize("stride", [1, 2])
def test_noise_is_unit_gaussian_whatever_the_input(stride: int) -> None:
    shape = (64, 15, 16, CHANNELS)
    drawn = np.asarray(noise(stride, jnp.zeros(shape), 0))
    assert drawn.shape == (64, -(-15 // stride), 16 // stride, CHANNELS)
    count = drawn.size
    assert abs(drawn.mean()) < 5 / count**0.5
    assert abs(drawn.var() - 1) < 5 * (2 / count) ** 0.5
    # Of a Gaussian 31.73% lie beyond one deviation; of other distributions of unit variance not.
    assert abs(np.mean(np.abs(drawn) > 1) - 0.3173) < 5 * (0.3173 * 0.6827 / count) ** 0.5
    # No two images or channels share their draws.
    flat = np.moveaxis(drawn, -1, 1).reshape(64 * CHANNELS, -1)
    assert len(np.unique(flat[:, 0])) == len(flat)
    np.testing.assert_array_equal(drawn, noise(stride, jnp.full(shape, 7.0), 0))
    assert not np.any(drawn == noise(stride, jnp.zeros(shape), 1))


def test_noise_is_the_same_on_any_number_of_devices() -> None:
    x, key = jnp.zeros((8, 3, 3, CHANNELS)), jax.random.key(0)
    mesh = sharding.data_mesh()
    assert mesh.size > 1
    module = BUILDERS["noise"](channels=CHANNELS, stride=1, affine=True, dtype=jnp.float32)

    def on_device(key: jax.Array, x: jax.Array) -> jax.Array:
        drawn = module.apply({}, x, True, rngs={"noise": key})
        return jax.lax.all_gather(drawn, "data", tiled=True)

    np.testing.assert_array_equal(sharding.by_device(on_device, mesh)(key, x), noise(1, x, 0))
