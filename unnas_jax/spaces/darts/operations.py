"""The operations of cells: one builder each, for discrete networks and the supernet alike."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.core import sharding
from unnas_jax.core.registry import Registry
from unnas_jax.layers import counting
from unnas_jax.layers.blocks import Conv, FactorizedReduction, ReluConvBN, batch_norm
from unnas_jax.layers.pooling import avg_pool, max_pool


class Operation(nn.Module):
    """What an operation is built with.

    Attributes:
      channels: of its input and its output.
      stride: of both axes, 1 or 2.
      affine: whether its batch norms, if it has any, have a scale and a bias.
      dtype: of its output.
    """

    channels: int
    stride: int
    affine: bool = True
    dtype: Any = jnp.float32


class Separable(Operation, kw_only=True):
    """`repeats` times: ReLU, depthwise kxk (the stride on the first only), pointwise, BN."""

    kernel: int
    dilation: int = 1
    repeats: int = 1

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
            x = batch_norm(train=train, affine=self.affine, dtype=self.dtype, name=f"bn_{half}")(x)
        return x


class Spatial(Operation, kw_only=True):
    """ReLU, 1xk with the stride along the width, kx1 with the stride along the height, BN."""

    kernel: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), channels)."""
        k, s = self.kernel, self.stride
        x = Conv(self.channels, (1, k), (1, s), dtype=self.dtype, name="row")(nn.relu(x))
        x = Conv(self.channels, (k, 1), (s, 1), dtype=self.dtype, name="column")(x)
        return batch_norm(train=train, affine=self.affine, dtype=self.dtype, name="bn")(x)


class Pool(Operation, kw_only=True):
    """Max or mean of kxk pixels, padded by k // 2 (2x2: not padded); padding never counts."""

    kind: str
    kernel: int

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


class Zero(Operation):
    """Zeros of the output's shape."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to zeros (N, ceil(H / stride), ceil(W / stride), C)."""
        return jnp.zeros_like(x[:, :: self.stride, :: self.stride])


def by_image(draw: Callable[..., jax.Array], key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """float32 draws of a shape (N, ...), those of each image of the whole batch from its own key.

    So they do not depend on how many devices share the batch.

    Args:
      draw: as `jax.random.normal`.
      key: of all.
      shape: of this device's part.
    """
    axis = sharding.batch_axis()
    before = 0 if axis is None else jax.lax.axis_index(axis) * shape[0]

    def of_image(image: jax.Array) -> jax.Array:
        return draw(jax.random.fold_in(key, image), tuple(shape[1:]), jnp.float32)

    return jax.vmap(of_image)(before + jnp.arange(shape[0]))


class Noise(Operation):
    """Draws from N(0, 1) of the output's shape, whatever the input (Zela et al., 2020, space S4).

    It draws in evaluation, too, from the random stream `noise`.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to noise (N, ceil(H / stride), ceil(W / stride), C)."""
        shape = x[:, :: self.stride, :: self.stride].shape
        return by_image(jax.random.normal, self.make_rng("noise"), shape).astype(self.dtype)


def _skip(
    channels: int, stride: int, affine: bool, dtype: Any, name: str | None = None
) -> nn.Module:
    if stride == 1:
        return Identity(name=name)
    return FactorizedReduction(channels, affine=affine, dtype=dtype, name=name)


Builder = Callable[..., nn.Module]
"""Called with the fields of `Operation` and `name`, all by keyword; gives a module that is called
as module(x, train). A `partial` of a module with these fields is one."""

BUILDERS: Registry[Builder] = Registry(
    "operation",
    {
        "none": Zero,
        "skip_connect": _skip,
        "noise": Noise,
        **{f"max_pool_{k}x{k}": partial(Pool, kind="max", kernel=k) for k in (2, 3, 5, 7)},
        **{f"avg_pool_{k}x{k}": partial(Pool, kind="avg", kernel=k) for k in (2, 3, 5)},
        **{f"sep_conv_{k}x{k}": partial(Separable, kernel=k, repeats=2) for k in (3, 5, 7)},
        **{f"dil_conv_{k}x{k}": partial(Separable, kernel=k, dilation=2) for k in (3, 5)},
        "dil_sep_conv_3x3": partial(Separable, kernel=3, dilation=2, repeats=2),
        "conv_1x1": partial(ReluConvBN, kernel=(1, 1)),
        "conv_3x3": partial(ReluConvBN, kernel=(3, 3)),
        "conv_3x1_1x3": partial(Spatial, kernel=3),
        "conv_7x1_1x7": partial(Spatial, kernel=7),
    },
)
"""Every operation that a genotype or `network.operations` can name. A new one is one line here, or
`BUILDERS.register(name, builder)` from outside."""

# Networks hold their operations by name: what was traced of one holds what the name stood for.
BUILDERS.when_replaced(jax.clear_caches)
BUILDERS.when_replaced(counting.forget)
