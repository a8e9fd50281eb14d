"""The layers that every search space is built from."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint

from unnas_jax.core import sharding
from unnas_jax.layers import convolution, forms
from unnas_jax.layers.normalization import BatchNorm, Statistics, moments, normalised_along

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """Uniform in +-1 / sqrt(fan_in); fan_in = kernel height * width * input channels per group.

    The values come from NumPy's Philox generator under flax's key of the parameter: equal on every
    backend, and without a program per shape to compile, which took XLA a minute for a supernet.
    """
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        def draw(data: Any) -> np.ndarray:
            # Two words of 32 bits, or four: `JAX_DEFAULT_PRNG_IMPL` decides.
            seed = functools.reduce(lambda high, word: high << 32 | int(word), np.asarray(data), 0)
            generator = np.random.Generator(np.random.Philox(key=seed))
            return generator.uniform(-bound, bound, tuple(shape)).astype(dtype)

        data = jax.random.key_data(key)
        if isinstance(data, jax.core.Tracer):
            result = jax.ShapeDtypeStruct(tuple(shape), dtype)
            return jax.pure_callback(draw, result, data, vmap_method="sequential")
        return jnp.asarray(draw(data))

    return init


def batch_norm(*, train: bool, affine: bool, dtype: Any, name: str) -> nn.Module:
    """Batch norm with the project's constants; statistics in float32 over the whole batch.

    The batch is the global one, so the statistics do not depend on the devices.
    """
    constants: dict[str, Any] = {
        "use_running_average": not train,
        "momentum": BN_MOMENTUM,
        "epsilon": BN_EPSILON,
        "dtype": dtype,
        "name": name,
    }
    axis = sharding.batch_axis()
    if sharding.platform() == "cpu" and axis is None:
        return BatchNorm(affine=affine, **constants)
    return nn.BatchNorm(
        axis_name=axis,
        use_scale=affine,
        use_bias=affine,
        param_dtype=jnp.float32,
        **constants,
    )


class BatchNormOfParts(nn.Module):
    """Batch norm, without scale and bias, of several arrays as if their channels were joined.

    The statistics are those of `nn.BatchNorm` on the arrays concatenated along the channels; the
    arrays are never joined.

    Attributes:
      axis: of the channels.
      dtype: of the results; statistics are float32, or float64 for such arrays.
    """

    axis: int = -1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        parts: Sequence[jax.Array],
        train: bool,
        factors: Sequence[jax.Array | float] | None = None,
    ) -> list[jax.Array]:
        """The normalised arrays: by the batch's statistics if `train`, else by the running ones.

        Args:
          parts: of any shapes that are equal but for the channels.
          train: whether to use the batch's statistics, and to update the running ones.
          factors: for each part the factors of its normalised channels, (channels,) or a number.
            They are part of the division by the deviation, so that the gradient of both takes one
            pass over the part.
        """
        factors = [1.0] * len(parts) if factors is None else factors
        channels = self.axis % parts[0].ndim
        sizes = [part.shape[channels] for part in parts]
        running = {
            name: self.variable("batch_stats", name, init, (sum(sizes),), jnp.float32)
            for name, init in (("mean", jnp.zeros), ("var", jnp.ones))
        }
        if self.is_initializing():  # Only shapes count.
            return [part.astype(self.dtype) for part in parts]
        axis = sharding.batch_axis()
        if not train:
            ends = np.cumsum(sizes)[:-1]
            split = [jnp.split(kept.value, ends) for kept in running.values()]
            found = list(zip(*split, strict=True))
        elif sharding.platform() == "cpu" and axis is None:
            pairs = [
                normalised_along(part, jnp.broadcast_to(factor, (size,)), channels, BN_EPSILON)
                for part, factor, size in zip(parts, factors, sizes, strict=True)
            ]
            self._keep(running, [statistics for _, statistics in pairs])
            return [part.astype(self.dtype) for part, _ in pairs]
        else:
            found = [moments(part, channels) for part in parts]
            if axis:
                near = jnp.split(running["mean"].value, np.cumsum(sizes)[:-1])
                found = _of_all_devices(found, near, axis)
            # Rounding must not make a variance negative.
            found = [(mean, jnp.maximum(variance, 0.0)) for mean, variance in found]
            self._keep(running, found)
        others = [k for k in range(parts[0].ndim) if k != channels]
        results = []
        for x, (mean, variance), factor in zip(parts, found, factors, strict=True):
            scale = factor * jax.lax.rsqrt(variance + BN_EPSILON)
            mean, scale = (jnp.expand_dims(value, others) for value in (mean, scale))
            results.append(((x - mean) * scale).astype(self.dtype))
        return results

    def _keep(self, running: Mapping[str, Any], found: Sequence[Statistics]) -> None:
        """Moves the running statistics towards those of a batch."""
        for kept, values in zip(running.values(), zip(*found, strict=True), strict=True):
            kept.value = BN_MOMENTUM * kept.value + (1 - BN_MOMENTUM) * jnp.concatenate(values)


def _of_all_devices(
    found: Sequence[tuple[jax.Array, jax.Array]], near: Sequence[jax.Array], axis: str
) -> list[tuple[jax.Array, jax.Array]]:
    """Means and variances of the global batch from those of the devices' parts.

    With means m and variances v of the parts it is E[v + m^2] - E[m]^2, after what is `near` the
    means is subtracted: the running means, which all devices have alike. One reduction is enough.
    """
    away = [mean - center for (mean, _), center in zip(found, near, strict=True)]
    square = [variance + mean**2 for (_, variance), mean in zip(found, away, strict=True)]
    away, square = jax.lax.pmean((away, square), axis)
    return [
        (center + mean, value - mean**2)
        for center, mean, value in zip(near, away, square, strict=True)
    ]


@functools.partial(jax.jit, static_argnames=("stride", "dilation", "by_xla"))
def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int, dilation: int, by_xla: bool | None = None
) -> jax.Array:
    """One filter per channel, padded by dilation * (k // 2) on every side.

    Args:
      x: (C, H, W, N).
      kernel: (k, k, C), k odd.
      stride: of both axes.
      dilation: of both axes.
      by_xla: whether to use XLA's grouped convolution; None: not on CPUs.

    Returns:
      (C, ceil(H / stride), ceil(W / stride), N).
    """
    pad = dilation * (kernel.shape[0] // 2)
    if by_xla is None:
        by_xla = sharding.platform() != "cpu"
    if not by_xla:
        return convolution.depthwise(x, kernel, stride, pad, dilation)
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        ((pad, pad), (pad, pad)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("CHWN", "HWIO", "CHWN"),
        feature_group_count=kernel.shape[-1],
    )


def chwn(x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (C, H, W, N), and back."""
    return jnp.transpose(x, (3, 1, 2, 0))


def in_lanes(x: jax.Array, axis: int) -> jax.Array:
    """Images (N, H, W, C), and their gradient, with one axis along the lanes of a TPU's memory.

    XLA chooses layouts by itself, and lays the images of a small batch there even where they leave
    more of the 128 lanes empty than the channels would; empty lanes are moved and computed like
    full ones.

    Args:
      x: the images.
      axis: 0 for the images, 3 for the channels.
    """
    return with_layout_constraint(x, Layout((1, 2, 3, 0) if axis == 0 else (1, 2, 0, 3)))


@jax.custom_vjp
def gradient_at_once(x: jax.Array) -> jax.Array:
    """An array of any shape, itself; its gradient is computed once, before what takes it.

    XLA's TPU compiler joins pointwise arithmetic to the convolution that takes its result, and
    computes it again wherever the convolution's windows overlap. For the gradient of a batch norm
    and windows of 5 pixels and more that costs more than to write the gradient and read it.
    """
    return x


def _gradient_at_once_bwd(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.optimization_barrier(gradient),)


gradient_at_once.defvjp(lambda x: (x, None), _gradient_at_once_bwd)


class Conv(nn.Module):
    """A convolution without bias, padded by dilation * (kernel // 2) on every side.

    (N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), channels).
    """

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: int = 1
    groups: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The convolution of (N, H, W, C)."""
        height, width = self.kernel
        fan_in = height * width * x.shape[-1] // self.groups
        pad = [(self.dilation * (k // 2),) * 2 for k in self.kernel]
        return nn.Conv(
            self.channels,
            self.kernel,
            strides=self.stride,
            padding=pad,
            kernel_dilation=(self.dilation, self.dilation),
            feature_group_count=self.groups,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=uniform_fan_in(fan_in),
            conv_general_dilated=forms.how(self.groups),
            name="conv",
        )(x)


class ReluConvBN(nn.Module):
    """ReLU, convolution, batch norm."""

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    affine: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), channels)."""
        x = Conv(
            self.channels, self.kernel, (self.stride,) * 2, dtype=self.dtype, name="convolution"
        )(nn.relu(x))
        return batch_norm(train=train, affine=self.affine, dtype=self.dtype, name="bn")(x)


def shifted(x: jax.Array) -> jax.Array:
    """The image moved one pixel up and left, zeros entering at the bottom and right."""
    return jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))


class FactorizedReduction(nn.Module):
    """Halves the resolution without losing pixels (DARTS).

    ReLU; two pointwise stride-2 convolutions to half the channels, of the image and of the image
    shifted by one pixel; concatenate; batch norm.
    """

    channels: int
    affine: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, C) to (N, ceil(H / 2), ceil(W / 2), channels)."""
        x = nn.relu(x)
        half = self.channels // 2
        first = Conv(half, stride=(2, 2), dtype=self.dtype, name="conv_1")(x)
        second = Conv(self.channels - half, stride=(2, 2), dtype=self.dtype, name="conv_2")(
            shifted(x)
        )
        x = jnp.concatenate([first, second], axis=-1)
        return batch_norm(train=train, affine=self.affine, dtype=self.dtype, name="bn")(x)


STEMS = ("imagenet", "imagenet_wide", "cifar")
"""The kinds of `Stem`."""


class Stem(nn.Module):
    """The layers before the first cell; returns the two inputs of the first cell.

    `cifar`: 3x3 convolution to 3 * width and BN, feeding both inputs at full resolution.
    `imagenet`: 3x3/2 to width / 2, BN, ReLU, 3x3/2 to width, BN: input 0; then ReLU, 3x3/2 to
    width, BN: input 1. Their sides are 1/4 and 1/8 of the image's.
    `imagenet_wide`: the same of three times the width, as PC-DARTS searches on ImageNet.
    """

    kind: str
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """(N, H, W, channels) to the two inputs."""

        def conv_bn(x: jax.Array, channels: int, stride: int, k: int) -> jax.Array:
            x = Conv(channels, (3, 3), (stride,) * 2, dtype=self.dtype, name=f"conv_{k}")(x)
            return batch_norm(train=train, affine=True, dtype=self.dtype, name=f"bn_{k}")(x)

        if self.kind == "cifar":
            x = conv_bn(x, 3 * self.width, 1, 0)
            return x, x
        width = self.width * (3 if self.kind == "imagenet_wide" else 1)
        x = conv_bn(x, width // 2, 2, 0)
        first = conv_bn(nn.relu(x), width, 2, 1)
        return first, conv_bn(nn.relu(first), width, 2, 2)


def reductions(cells: int, single: bool) -> tuple[int, ...]:
    """The positions of the reduction cells: at 1/3 and 2/3, or (segmentation) only at 1/3."""
    return (cells // 3,) if single else (cells // 3, 2 * cells // 3)


@dataclasses.dataclass(frozen=True)
class CellPlan:
    """The settings that follow from a cell's place in a network.

    Attributes:
      name: the cell's module name.
      channels: of every state of the cell.
      reduction: whether the edges from the two inputs have stride 2.
      reduce_input0: whether input 0 has twice the side of input 1.
    """

    name: str
    channels: int
    reduction: bool
    reduce_input0: bool


def plan(width: int, cells: int, stem: str, single_reduction: bool) -> list[CellPlan]:
    """The cells of a network from the first to the last; a reduction doubles the channels."""
    reducing = reductions(cells, single_reduction)
    plans, channels, halved = [], width, stem != "cifar"
    for index in range(cells):
        reduction = index in reducing
        channels *= 2 if reduction else 1
        plans.append(CellPlan(f"cell_{index}", channels, reduction, halved))
        halved = reduction
    return plans
