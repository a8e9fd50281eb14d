"""Tests that every operation of a discrete cell is the one that its name stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from tests.spaces import quick
from unnas_jax.spaces.darts.operations import BUILDERS

CHANNELS = 4
# An even and an odd side, so that a transposed stride or a wrong rounding shows.
SHAPE = (3, 6, 7, CHANNELS)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", sorted(BUILDERS))
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
