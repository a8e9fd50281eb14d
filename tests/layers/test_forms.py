"""Which form convolutions of several networks take, and poolings in the network's format."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unnas_jax.core import sharding
from unnas_jax.layers import forms, pooling


def _traced_for(platform):
    device = jax.sharding.AbstractDevice("some", 1, platform)
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


@pytest.mark.parametrize(("platform", "form"), [("gpu", "products"), ("tpu", "grouped")])
def test_gpus_compute_several_networks_by_products(platform, form):
    with _traced_for(platform):
        assert sharding.platform() == platform
        assert forms.of_platform() == form


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("pool", [pooling.avg_pool, pooling.max_pool])
def test_poolings_keep_the_format(platform, pool):
    x = jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.bfloat16)
    with _traced_for(platform):
        assert jax.eval_shape(lambda x: pool(x, 3, 1, 1), x).dtype == jnp.bfloat16


def test_a_named_padding_is_that_of_xla():
    rng = np.random.default_rng(0)
    x, kernel = (rng.standard_normal(s).astype(np.float32) for s in ((1, 5, 5, 2), (3, 3, 2, 4)))
    same = {"rhs_dilation": (1, 1), "feature_group_count": 1}
    want = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **same
    )
    found = forms.patch_conv(x, kernel, (2, 2), "SAME", **same)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
