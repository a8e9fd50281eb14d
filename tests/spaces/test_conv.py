"""Depthwise convolutions of networks against XLA's grouped convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unnas_jax.layers.blocks import Conv


@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (20, 20)])  # By matrices, and too large for it.
def test_depthwise_is_a_grouped_convolution(size, stride, dilation):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 6)), jnp.float32)
    module = Conv(6, (3, 3), (stride, stride), dilation, groups=6)
    variables = module.init(jax.random.key(0), x)
    kernel = variables["params"]["conv"]["kernel"]
    assert kernel.shape == (3, 3, 1, 6)

    def grouped(kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(dilation, dilation)] * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=6,
        )

    def ours(kernel):
        return module.apply({"params": {"conv": {"kernel": kernel}}}, x)

    np.testing.assert_allclose(ours(kernel), grouped(kernel), atol=1e-6)
    gradients = [jax.grad(lambda k, f=f: jnp.sum(f(k) ** 2))(kernel) for f in (ours, grouped)]
    np.testing.assert_allclose(*gradients, atol=1e-4, rtol=1e-5)
