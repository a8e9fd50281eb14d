"""Batch norm on a CPU, with a gradient that passes over the images as rarely as possible.

The gradient that JAX derives of `nn.BatchNorm` goes through mean and variance one by one, a pass
over the images each; written by hand it is two sums and one sum of three terms. On a core that is
about half of the time of forward and backward, and less to compile.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Statistics = tuple[jax.Array, jax.Array]
"""Mean and variance of every channel, (C,)."""


class BatchNorm(nn.Module):
    """`nn.BatchNorm` over all but the last axis: the same function of the same variables.

    Attributes:
      use_running_average: whether to use the running statistics, and leave them as they are.
      momentum: of the running statistics.
      epsilon: added to the variance.
      affine: whether there are a scale and a bias.
      dtype: of the result; statistics are float32, or float64 for such images.
    """

    use_running_average: bool
    momentum: float
    epsilon: float
    affine: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., C) to the same shape."""
        shape = x.shape[-1:]
        mean, variance = (
            self.variable("batch_stats", name, init, shape, jnp.float32)
            for name, init in (("mean", jnp.zeros), ("var", jnp.ones))
        )
        scale, bias = jnp.ones(shape), jnp.zeros(shape)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if self.is_initializing():  # Only shapes count.
            return x.astype(self.dtype)
        pixels = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(-1, *shape)
        if self.use_running_average:
            factor = scale * jax.lax.rsqrt(variance.value + self.epsilon)
            out = (pixels - mean.value[None]) * factor[None] + bias[None]
        else:
            out, found = _normalised(pixels, scale, bias, self.epsilon)
            for kept, new in zip((mean, variance), found, strict=True):
                kept.value = self.momentum * kept.value + (1 - self.momentum) * new
        return out.astype(self.dtype).reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalised(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, Statistics]:
    """Pixels (P, C) normalised by their statistics, and the statistics, which get no gradient."""
    return _normalised_fwd(x, scale, bias, epsilon)[0]


def _normalised_fwd(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, Statistics], tuple[jax.Array, ...]]:
    mean = jnp.mean(x, 0)
    # Rounding must not make a variance negative.
    variance = jnp.maximum(jnp.mean(x * x, 0) - mean**2, 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    out = (x - mean[None]) * (scale * inverse)[None] + bias[None]
    return (out, (mean, variance)), (x, scale, mean, inverse)


def _normalised_bwd(
    epsilon: float, kept: tuple[jax.Array, ...], gradients: tuple[jax.Array, Statistics]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del epsilon
    (x, scale, mean, inverse), (gradient, _) = kept, gradients
    of_bias = jnp.sum(gradient, 0)
    of_scale = (jnp.sum(gradient * x, 0) - mean * of_bias) * inverse
    # scale * inverse * (gradient - mean of it - normalised x * mean of its product with that).
    factor = scale * inverse
    slope = -factor * inverse * of_scale / len(x)
    rest = -factor * of_bias / len(x)
    of_x = gradient * factor[None] + (x - mean[None]) * slope[None] + rest[None]
    return of_x, of_scale, of_bias


_normalised.defvjp(_normalised_fwd, _normalised_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def normalised_along(
    x: jax.Array, factor: jax.Array, axis: int, epsilon: float
) -> tuple[jax.Array, Statistics]:
    """An array normalised by its channels' statistics, times a factor of each channel.

    Args:
      x: of any shape.
      factor: of the normalised channels, (C,).
      axis: of the channels, from 0.
      epsilon: added to the variance.

    Returns:
      The same shape in float32, or float64 for such x; and the statistics, which get no gradient.
    """
    return _along_fwd(x, factor, axis, epsilon)[0]


# Compiled as one function each, so that arrays of equal shapes share what is traced.
@functools.partial(jax.jit, static_argnums=(2, 3))
def _along_fwd(
    x: jax.Array, factor: jax.Array, axis: int, epsilon: float
) -> tuple[tuple[jax.Array, Statistics], tuple[jax.Array, ...]]:
    mean, variance = moments(x, axis)
    # Rounding must not make a variance negative.
    variance = jnp.maximum(variance, 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    others = _others(x, axis)
    around, scale = (jnp.expand_dims(y, others) for y in (mean, factor * inverse))
    return ((x - around) * scale, (mean, variance)), (x, factor, mean, inverse)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _along_bwd(
    axis: int,
    epsilon: float,
    kept: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, Statistics],
) -> tuple[jax.Array, jax.Array]:
    del epsilon
    (x, factor, mean, inverse), (gradient, _) = kept, gradients
    others = _others(x, axis)
    moved = x - jnp.expand_dims(mean, others)
    of_factor = jnp.sum(gradient * moved, others) * inverse
    # factor * inverse * (gradient - mean of it - normalised x * mean of its product with that).
    scale, count = factor * inverse, x.size // x.shape[axis]
    slope, rest = scale * inverse * of_factor / count, scale * jnp.sum(gradient, others) / count
    scale, slope, rest = (jnp.expand_dims(y, others) for y in (scale, slope, rest))
    of_x = gradient * scale - moved * slope - rest
    return of_x.astype(x.dtype), of_factor.astype(factor.dtype)


normalised_along.defvjp(_along_fwd, _along_bwd)


def moments(x: jax.Array, axis: int) -> Statistics:
    """The mean and the variance of every channel, on this device.

    E[x^2] - E[x]^2 loses the digits in which both agree, and E[(x - E[x])^2] reads x twice. A
    number near the mean, subtracted first, avoids both. The value of any pixel is near enough; this
    takes the middle one.

    Args:
      x: of any shape.
      axis: of the channels, from 0.

    Returns:
      In float32, or float64 for such x. Rounding may make a variance negative.
    """
    x, others = x.astype(jnp.promote_types(x.dtype, jnp.float32)), _others(x, axis)
    middle = tuple(size // 2 if k in others else slice(None) for k, size in enumerate(x.shape))
    near = jax.lax.stop_gradient(x[middle])
    moved = x - jnp.expand_dims(near, others)
    mean = jnp.mean(moved, others)
    return near + mean, jnp.mean(moved**2, others) - mean**2


def _others(x: jax.Array, axis: int) -> tuple[int, ...]:
    return tuple(k for k in range(x.ndim) if k != axis)
