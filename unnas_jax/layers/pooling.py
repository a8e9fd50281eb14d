"""Max and average pooling, axis by axis where XLA has no fast operation for their gradients.

XLA's gradient of a max pooling is an operation of TPUs alone. On CPUs and GPUs it becomes a
pooling that carries four indices along with every value, and a scatter. Here a window is reduced
along one axis and then the other, as `kernel` shifted slices each, whose gradients are elementwise.
On two CPU cores that takes, forward and backward, a fifth to a thirteenth of the time for maxima
and a fifth to three quarters for means (`benchmarks/pooling.py`).
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.core import sharding


def max_pool(x: jax.Array, kernel: int, stride: int, padding: int) -> jax.Array:
    """The maxima of windows; the gradient goes to the first one of a window, row by row.

    Args:
      x: (A, H, W, B): batch and channels, in whatever order, around rows and columns.
      kernel: the side of a window.
      stride: of both axes.
      padding: what is added on all sides, and is never a maximum.

    Returns:
      (A, (H + 2 * padding - kernel) // stride + 1, the same of W, B).
    """
    if sharding.platform() == "tpu":
        return nn.max_pool(x, (kernel,) * 2, (stride,) * 2, ((padding,) * 2,) * 2)

    def larger(first: jax.Array, second: jax.Array) -> jax.Array:
        # Not `jnp.maximum`, which would halve the gradient between equals. NaNs come through.
        return jnp.where((second > first) | jnp.isnan(second), second, first)

    return _by_axis(x, larger, -jnp.inf, kernel, stride, padding)


def avg_pool(x: jax.Array, kernel: int, stride: int, padding: int) -> jax.Array:
    """The means of windows, of the pixels within the image only; as `max_pool` otherwise."""
    if sharding.platform() != "cpu":
        window, pads = (kernel,) * 2, ((padding,) * 2,) * 2
        means = nn.avg_pool(x, window, (stride,) * 2, pads, count_include_pad=False)
        return means.astype(x.dtype)  # Divided by counts in float32.
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    total, count = (_by_axis(y, jnp.add, 0.0, kernel, stride, padding) for y in (x, ones))
    return total / count


def _by_axis(
    x: jax.Array,
    join: Callable[[jax.Array, jax.Array], jax.Array],
    empty: float,
    kernel: int,
    stride: int,
    padding: int,
) -> jax.Array:
    for axis in (2, 1):
        width = [(0, 0)] * x.ndim
        width[axis] = (padding, padding)
        x = jnp.pad(x, width, constant_values=empty)
        span = max((x.shape[axis] - kernel) // stride * stride + 1, 0)
        slices = [
            jax.lax.slice_in_dim(x, first, first + span, stride, axis) for first in range(kernel)
        ]
        x = functools.reduce(join, slices)
    return x
