"""Convolutions of a CPU against XLA's, in float64."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unnas_jax.layers import convolution, forms
from unnas_jax.layers.blocks import Conv, depthwise_conv


def plain(x, kernel, strides, padding, dilation, groups, layout="NHWC"):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=(layout, "HWIO", layout),
        feature_group_count=groups,
    )


def agree(ours, reference, x, kernel):
    """Values and both gradients, of a sum with random weights, to 1e-10 of the largest."""

    def both(function):
        out, back = jax.vjp(function, x, kernel)
        weights = np.random.default_rng(1).normal(size=out.shape)
        return out, *back(jnp.asarray(weights))

    for found, expected in zip(jax.jit(lambda: both(ours))(), both(reference), strict=True):
        assert found.dtype == expected.dtype == jnp.float64
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def random(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize(
    ("size", "strides", "padding", "dilation", "outs", "groups"),
    [
        ((3, 3), (1, 1), [(1, 1), (1, 1)], (1, 1), 5, 1),
        ((3, 3), (2, 2), [(1, 1), (1, 1)], (1, 1), 5, 1),
        ((3, 3), (2, 1), [(2, 2), (2, 2)], (2, 2), 5, 1),
        ((1, 7), (1, 2), [(0, 0), (3, 3)], (1, 1), 6, 1),
        ((3, 1), (2, 1), [(1, 1), (0, 0)], (1, 1), 6, 1),
        ((2, 2), (2, 2), "VALID", (1, 1), 5, 1),
        ((2, 2), (1, 1), "SAME", (1, 1), 5, 1),
        ((1, 1), (2, 2), [(0, 0), (0, 0)], (1, 1), 5, 1),
        ((3, 3), (1, 1), [(1, 1), (1, 1)], (1, 1), 6, 2),
        ((3, 3), (1, 1), [(1, 1), (1, 1)], (1, 1), 6, 6),
        ((3, 3), (2, 2), [(2, 2), (2, 2)], (2, 2), 6, 6),
        ((2, 3), (2, 1), "VALID", (1, 1), 6, 6),
        ((3, 3), (2, 2), [(3, 0), (0, 3)], (1, 1), 6, 6),
    ],
)
@pytest.mark.parametrize("sides", [(9, 8), (10, 11)])  # The second too large for matrices.
def test_convolutions_and_their_gradients(
    sides, size, strides, padding, dilation, outs, groups, monkeypatch
):
    monkeypatch.setattr(convolution, "_CACHED_BYTES", 20_000)  # A part of the images.
    monkeypatch.setattr(convolution, "_XLA_BYTES", 0)  # Few patches, too, by products.
    monkeypatch.setattr(convolution, "_MATRIX_PAIRS", 72 * 72)
    with jax.enable_x64(True):
        agree(
            lambda x, kernel: convolution.convolve(
                x, kernel, strides, padding, rhs_dilation=dilation, feature_group_count=groups
            ),
            lambda x, kernel: plain(x, kernel, strides, padding, dilation, groups),
            random(6, *sides, 6),
            random(*size, 6 // groups, outs),
        )


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("sides", [(7, 5), (20, 18)])  # By matrices, and too large for it.
def test_depthwise_with_the_channels_first(sides, stride, dilation):
    pad = (dilation, dilation)
    with jax.enable_x64(True):
        agree(
            lambda x, kernel: depthwise_conv(x, kernel, stride=stride, dilation=dilation),
            lambda x, kernel: plain(
                x,
                kernel[:, :, None],
                (stride, stride),
                (pad, pad),
                (dilation, dilation),
                6,
                "CHWN",
            ),
            random(6, *sides, 2),
            random(3, 3, 6),
        )


@pytest.mark.parametrize("groups", [1, 6])
def test_a_module_has_the_shapes_of_a_linen_one(groups):
    x = jnp.zeros((2, 7, 5, 6))
    module = Conv(6, (3, 3), (2, 2), 2, groups=groups)
    variables = module.init(jax.random.key(0), x)
    assert variables["params"]["conv"]["kernel"].shape == (3, 3, 6 // groups, 6)
    assert module.apply(variables, x).shape == (2, 4, 3, 6)


@pytest.mark.parametrize("groups", [1, 4])
def test_several_kernels_at_once_and_images_of_several_devices(groups, monkeypatch):
    monkeypatch.setattr(convolution, "_CACHED_BYTES", 20_000)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 16, 8, 8, 4)).astype(np.float32)
    kernels = rng.normal(size=(3, 3, 3, 4 // groups, 4)).astype(np.float32)
    pad = [(1, 1), (1, 1)]

    def gradients(function):
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(function(x, k))), (0, 1))

    def ours(x, kernel):
        return convolution.convolve(
            x, kernel, (1, 1), pad, rhs_dilation=(1, 1), feature_group_count=groups, several=True
        )

    reference = gradients(lambda x, k: plain(x, k, (1, 1), pad, (1, 1), groups))
    expected = [reference(*one) for one in zip(x, kernels, strict=True)]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "data"))
    found = jax.jit(jax.vmap(gradients(ours)))(jax.device_put(x, place), kernels)
    for k, both in enumerate(expected):
        for one, other in zip(found, both, strict=True):
            np.testing.assert_allclose(one[k], other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("images", "several", "products"), [(64, False, False), (64, True, True), (1024, False, True)]
)
def test_few_patches_of_one_network_are_left_to_xla(images, several, products):
    def gradient(x, kernel):
        with forms.form("grouped") if several else contextlib.nullcontext():
            convolve = forms.how(1)
        rest = {"padding": [(1, 1), (1, 1)], "rhs_dilation": (1, 1)}
        return jax.grad(lambda kernel: jnp.sum(convolve(x, kernel, (2, 2), **rest)))(kernel)

    shapes = (images, 24, 24, 8), (3, 3, 8, 16)
    traced = str(jax.make_jaxpr(gradient)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)))
    assert ("dot_general" in traced) == products
