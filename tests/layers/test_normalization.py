"""The batch norm of a CPU against linen's, in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unnas_jax.layers.normalization import BatchNorm


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_values_statistics_and_gradients_are_those_of_linen(affine, train):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(3.0, 2.0, (4, 3, 5, 6)))
        weights = jnp.asarray(rng.normal(size=x.shape))
        ours = BatchNorm(not train, 0.9, 1e-5, affine, jnp.float64)
        reference = nn.BatchNorm(
            not train, momentum=0.9, epsilon=1e-5, use_scale=affine, use_bias=affine
        )
        variables = reference.init(jax.random.key(0), x)
        assert jax.tree.structure(ours.init(jax.random.key(0), x)) == jax.tree.structure(variables)
        variables = jax.tree.map(
            lambda leaf: jnp.asarray(rng.uniform(0.5, 2.0, leaf.shape), jnp.float32), variables
        )

        def of(module):
            def weighted(params, x):
                given = {**variables, "params": params}
                out, updated = module.apply(given, x, mutable=["batch_stats"])
                return jnp.sum(out * weights), (out, updated)

            return jax.jit(jax.grad(weighted, (0, 1), has_aux=True))(variables.get("params", {}), x)

        # Parameters, and so their gradients, are float32 on both sides.
        for found, expected in zip(
            *(jax.tree.leaves(of(m)) for m in (ours, reference)), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
