"""The operations of discrete DARTS cells, those of cells published by others included."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.layers.blocks import Conv, FactorizedReduction, ReluConvBN, batch_norm
from unnas_jax.layers.pooling import avg_pool, max_pool


class Separable(nn.Module):
    """`repeats` times: ReLU, depthwise kxk (the stride on the first only), pointwise, BN."""

    channels: int
    kernel: int
    stride: int
    dilation: int
    repeats: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), channels)."""
        for half in range(self.repeats):
            x = Conv(
                x.shape[-1],
                (self.kernel, self.kernel),
                (self.stride if half == 0 else 1,) * 2,
                self.dilation,
                groups=x.shape[-1],
                dtype=self.dtype,
                name=f"depthwise_{half}",
            )(nn.relu(x))
            x = Conv(self.channels, dtype=self.dtype, name=f"pointwise_{half}")(x)
            x = batch_norm(train=train, affine=True, dtype=self.dtype, name=f"bn_{half}")(x)
        return x


class Spatial(nn.Module):
    """ReLU, 1xk with the stride along the width, kx1 with the stride along the height, BN."""

    channels: int
    kernel: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), channels)."""
        k, s = self.kernel, self.stride
        x = Conv(self.channels, (1, k), (1, s), dtype=self.dtype, name="row")(nn.relu(x))
        x = Conv(self.channels, (k, 1), (s, 1), dtype=self.dtype, name="column")(x)
        return batch_norm(train=train, affine=True, dtype=self.dtype, name="bn")(x)


class Pool(nn.Module):
    """Max or mean of kxk pixels, padded by k // 2 (2x2: not padded); padding never counts."""

    kind: str
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to the pooled (N, H / stride, W / stride, C)."""
        pad = self.kernel // 2 if self.kernel % 2 else 0
        pool = max_pool if self.kind == "max" else avg_pool
        return pool(x, self.kernel, self.stride, pad)


class Identity(nn.Module):
    """The input."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Any shape, unchanged."""
        return x


class Zero(nn.Module):
    """Zeros of the output's shape."""

    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to zeros (N, ceil(H / stride), ceil(W / stride), C)."""
        return jnp.zeros_like(x[:, :: self.stride, :: self.stride])


Builder = Callable[[int, int, Any, str], nn.Module]
"""(channels, stride, dtype, module name) to a module called as module(x, train)."""


def _separable(kernel: int, dilation: int, repeats: int) -> Builder:
    return lambda channels, stride, dtype, name: Separable(
        channels, kernel, stride, dilation, repeats, dtype, name=name
    )


def _pool(kind: str, kernel: int) -> Builder:
    return lambda channels, stride, dtype, name: Pool(kind, kernel, stride, name=name)


def _conv(kernel: int) -> Builder:
    return lambda channels, stride, dtype, name: ReluConvBN(
        channels, (kernel, kernel), stride, dtype=dtype, name=name
    )


def _spatial(kernel: int) -> Builder:
    return lambda channels, stride, dtype, name: Spatial(channels, kernel, stride, dtype, name=name)


def _skip(channels: int, stride: int, dtype: Any, name: str) -> nn.Module:
    if stride == 1:
        return Identity(name=name)
    return FactorizedReduction(channels, dtype=dtype, name=name)


BUILDERS: dict[str, Builder] = {
    "none": lambda channels, stride, dtype, name: Zero(stride, name=name),
    "skip_connect": _skip,
    **{f"max_pool_{k}x{k}": _pool("max", k) for k in (2, 3, 5, 7)},
    **{f"avg_pool_{k}x{k}": _pool("avg", k) for k in (2, 3, 5)},
    **{f"sep_conv_{k}x{k}": _separable(k, 1, 2) for k in (3, 5, 7)},
    **{f"dil_conv_{k}x{k}": _separable(k, 2, 1) for k in (3, 5)},
    "dil_sep_conv_3x3": _separable(3, 2, 2),
    "conv_1x1": _conv(1),
    "conv_3x3": _conv(3),
    "conv_3x1_1x3": _spatial(3),
    "conv_7x1_1x7": _spatial(7),
}
"""Every operation that a genotype can name. A new operation is one line here, and its name in
`genotype.EXTRA_OPERATIONS`."""
