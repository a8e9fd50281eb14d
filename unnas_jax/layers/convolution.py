"""Convolutions of images on a CPU, with gradients that XLA has no quick way for.

XLA computes the gradient in a kernel as a convolution whose window is the whole image, from all
patches at once, and a depthwise convolution channel by channel. Here the first, where the patches
outgrow the cache, is a matrix product of those of few images at a time, and the second shifted
images times a tap each, summed within one pass.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Bytes of the patches that are made at a time: about half of a core's own cache.
_CACHED_BYTES = 2**20

# Up to so many bytes of patches XLA's gradient in a kernel is quicker: at 4 MB it takes half to two
# thirds of the time, at 10 MB as long, at 30 MB twice as long.
_XLA_BYTES = 6 * 2**20

# Up to this many (output pixel, input pixel) pairs a depthwise convolution is a matrix product: 8 x
# 8 pixels at stride 1. At 16 x 16 it takes three times as long as tap by tap.
_MATRIX_PAIRS = 2**12

_LAYOUT = ("NHWC", "HWIO", "NHWC")

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class _Window:
    """How a kernel moves over an image; every pair is of rows and columns.

    Attributes:
      strides, dilation: of both axes.
      pads: for both axes the pixels added before and after; negative ones are cut off.
    """

    strides: Pair
    pads: tuple[Pair, Pair]
    dilation: Pair

    def reach(self, kernel: Sequence[int]) -> Pair:
        """The distance from the first to the last tap of a kernel, in pixels."""
        return self.dilation[0] * (kernel[0] - 1), self.dilation[1] * (kernel[1] - 1)

    def spread(
        self, gradient: jax.Array, x: jax.Array, kernel: Sequence[int]
    ) -> list[tuple[int, int, int]]:
        """How to pad a gradient, along both axes, for the pixels of x that caused it.

        It is then at the pixel of x, plus the kernel's reach, minus the tap.
        """
        edges = []
        for axis, reach in enumerate(self.reach(kernel)):
            stride, before = self.strides[axis], reach - self.pads[axis][0]
            length = (gradient.shape[1 + axis] - 1) * stride + 1
            edges.append((before, x.shape[1 + axis] + reach - length - before, stride - 1))
        return edges

    def padded(self, x: jax.Array) -> jax.Array:
        """The images with the padding over which the kernel moves."""
        rows, columns = ((*pad, 0) for pad in self.pads)
        return _pad(x, rows, columns)

    def taps(self, kernel: Sequence[int]) -> Iterator[Pair]:
        """The offset of each tap of a kernel in a padded image, row by row."""
        rows, columns = (range(0, k * d, d) for k, d in zip(kernel[:2], self.dilation, strict=True))
        return itertools.product(rows, columns)

    def outputs(self, x: Sequence[int], kernel: Sequence[int]) -> Pair:
        """The sides of the result for images of a shape."""
        reach = self.reach(kernel)

        def along(axis: int) -> int:
            padded: int = x[1 + axis] + sum(self.pads[axis])
            return (padded - reach[axis] - 1) // self.strides[axis] + 1

        return along(0), along(1)

    def seen(self, x: Sequence[int], kernel: Sequence[int]) -> Pair:
        """The rows and columns of a padded image from the first that a tap meets to the last."""
        height, width = self.outputs(x, kernel)
        return (height - 1) * self.strides[0] + 1, (width - 1) * self.strides[1] + 1

    def small(self, x: jax.Array, kernel: Sequence[int]) -> bool:
        """Whether a depthwise convolution is faster as a matrix product."""
        outputs = self.outputs(x.shape, kernel)
        return outputs[0] * outputs[1] * x.shape[1] * x.shape[2] <= _MATRIX_PAIRS


def _pad(x: jax.Array, rows: tuple[int, int, int], columns: tuple[int, int, int]) -> jax.Array:
    """Zeros before, after and between the rows and columns, the middle axes."""
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))


def _met(x: jax.Array, tap: Pair, seen: Pair, strides: Pair) -> jax.Array:
    """The pixels of a padded image that a tap is multiplied with."""
    (row, column), (height, width) = tap, seen
    return x[:, row : row + height : strides[0], column : column + width : strides[1]]


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Any,
    *,
    rhs_dilation: Sequence[int],
    feature_group_count: int = 1,
    several: bool = False,
    **same: Any,
) -> jax.Array:
    """Replaces `jax.lax.conv_general_dilated` in a `nn.Conv`.

    Args:
      x: (N, H, W, C).
      kernel: (h, w, C / groups, D).
      strides: of rows and columns.
      padding: as there: a name, or for both axes the pixels before and after.
      rhs_dilation: of the kernel.
      feature_group_count: groups of channels.
      several: whether this is mapped over kernels: XLA's gradients in several are slow.
      **same: further arguments that a `nn.Conv` gives, at their defaults.

    Returns:
      (N, H', W', D).
    """
    del same
    size = kernel.shape[:2]
    dilated = [d * (k - 1) + 1 for k, d in zip(size, rhs_dilation, strict=True)]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], dilated, strides, padding)
    rows, columns = ((int(low), int(high)) for low, high in padding)
    window = _Window((strides[0], strides[1]), (rows, columns), (rhs_dilation[0], rhs_dilation[1]))
    if feature_group_count == 1:
        if size == (1, 1) and not any(rows + columns):
            x = x[:, :: strides[0], :: strides[1]]
            # One axis of all pixels: contracting several, XLA would transpose in the gradient.
            out = _pointwise(x.reshape(-1, x.shape[-1]), kernel[0, 0])
            return out.reshape(*x.shape[:3], -1)
        patches = math.prod((len(x), *window.outputs(x.shape, size), *size, x.shape[-1]))
        if several or patches * x.dtype.itemsize > _XLA_BYTES:
            return _dense(x, kernel, window)
        return _by_xla(x, kernel, window)
    if feature_group_count == x.shape[-1] == kernel.shape[-1]:
        filters = kernel[:, :, 0]
        if not window.small(x, filters.shape):
            return _by_tap(x, filters, window, 3)
        # Products of matrices want the channels first.
        out = _by_matrix(jnp.transpose(x, (3, 1, 2, 0)), filters, window)
        return jnp.transpose(out, (3, 1, 2, 0))
    return _by_xla(x, kernel, window, feature_group_count)


def _by_xla(x: jax.Array, kernel: jax.Array, window: _Window, groups: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.pads,
        rhs_dilation=window.dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """Every channel of the result from all channels of x."""
    return _by_xla(x, kernel, window)


def _dense_fwd(
    x: jax.Array, kernel: jax.Array, window: _Window
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _dense(x, kernel, window), (x, kernel)


def _dense_bwd(
    window: _Window, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    _, of_x = jax.vjp(lambda x: _by_xla(x, kernel, window), x)
    return of_x(gradient)[0], _of_kernel(x, gradient, kernel, window)


_dense.defvjp(_dense_fwd, _dense_bwd)


def _over_images(
    of_some: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    gradient: jax.Array,
    bytes_each: int,
) -> jax.Array:
    """The sum of a function of some images and their gradients over as many as the cache holds."""
    count = len(x)
    most = max(1, min(count, _CACHED_BYTES // bytes_each))
    some = max(k for k in range(1, most + 1) if count % k == 0)
    steps = count // some
    if steps == 1:
        return of_some(x, gradient)
    # Every so many-th image, not so many in a row: of a batch that is split over devices each one
    # then has a part of every step.
    x, gradient = (y.reshape(some, steps, *y.shape[1:]) for y in (x, gradient))

    def add(step: Any, total: jax.Array) -> jax.Array:
        parts = (jax.lax.dynamic_index_in_dim(y, step, 1, keepdims=False) for y in (x, gradient))
        return total + of_some(*parts)

    shape = jax.eval_shape(of_some, x[:, 0], gradient[:, 0])
    return jax.lax.fori_loop(0, steps, add, jnp.zeros(shape.shape, shape.dtype))


def _products(a: jax.Array, b: jax.Array) -> jax.Array:
    """The sum over pixels of products of (P, A) and (P, B): (A, B), in float32 or float64."""
    exact = jnp.promote_types(a.dtype, jnp.float32)
    if a.shape[1] > b.shape[1]:  # XLA is up to three times as quick with few rows, many columns.
        return jnp.einsum("pb,pa->ba", b, a, preferred_element_type=exact).T
    return jnp.einsum("pa,pb->ab", a, b, preferred_element_type=exact)


def _of_kernel(x: jax.Array, gradient: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """The gradient in a kernel (h, w, C, D).

    A product of what every pixel of x joins of x, the taps of a row, and of the gradient, the rows.
    """
    height, width, channels, outs = kernel.shape
    reach, _ = window.reach(kernel.shape)
    firsts = [first for first, _ in window.taps((height, 1))]

    def of_some(x: jax.Array, gradient: jax.Array) -> jax.Array:
        rows = x.shape[1]
        back = _pad(gradient, window.spread(gradient, x, kernel.shape)[0], (0, 0, 0))
        by_row = [back[:, reach - first : reach - first + rows] for first in firsts]
        seen = rows, window.seen(x.shape, (1, width))[1]
        image = _pad(x, (0, 0, 0), (*window.pads[1], 0))
        by_column = [
            _met(image, tap, seen, (1, window.strides[1])) for tap in window.taps((1, width))
        ]
        joined = (jnp.concatenate(y, axis=-1) for y in (by_row, by_column))
        return _products(*(y.reshape(-1, y.shape[-1]) for y in joined))

    each = x.shape[1] * gradient.shape[2] * (height * outs + width * channels)
    total = _over_images(of_some, x, gradient, each * x.dtype.itemsize)
    total = total.reshape(height, outs, width, channels)
    return total.transpose(0, 2, 3, 1).astype(kernel.dtype)


@jax.custom_vjp
def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Pixels (P, C) times (C, D)."""
    return x @ kernel


def _pointwise_bwd(
    kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    return gradient @ kernel.T, _products(x, gradient).astype(kernel.dtype)


_pointwise.defvjp(lambda x, kernel: (_pointwise(x, kernel), (x, kernel)), _pointwise_bwd)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, pad: int, dilation: int) -> jax.Array:
    """One filter per channel.

    Args:
      x: (C, H, W, N).
      kernel: (h, w, C).
      stride: of both axes.
      pad: pixels added on all sides.
      dilation: of both axes.

    Returns:
      (C, H', W', N).
    """
    window = _Window((stride, stride), ((pad, pad), (pad, pad)), (dilation, dilation))
    if window.small(x, kernel.shape):
        return _by_matrix(x, kernel, window)
    return _by_tap(x, kernel, window, 0)


def _placement(window: _Window, kernel: Sequence[int], x: Sequence[int]) -> np.ndarray:
    """For each tap of a kernel, which pixels it joins: 0 or 1, (h * w, output, input pixels)."""

    def along(axis: int) -> np.ndarray:
        taps = np.arange(kernel[axis])[:, None] * window.dilation[axis]
        outputs = np.arange(window.outputs(x, kernel)[axis])[None]
        inputs = outputs * window.strides[axis] + taps - window.pads[axis][0]
        return inputs[..., None] == np.arange(x[1 + axis])

    rows, columns = along(0), along(1)
    joined = rows[:, None, :, None, :, None] & columns[None, :, None, :, None, :]
    height, width, out_h, out_w, in_h, in_w = joined.shape
    return joined.reshape(height * width, out_h * out_w, in_h * in_w).astype(np.float32)


def _by_matrix(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """Depthwise, of (C, H, W, N): for each channel the (mostly zero) matrix of its filter.

    Of small images that is quick, forward and backward, and quick to compile.
    """
    channels, _, _, count = x.shape
    placement = _placement(window, kernel.shape, x.shape).astype(x.dtype)
    matrices = jnp.einsum("kc,kqp->cqp", kernel.reshape(-1, channels), placement)
    out = jnp.einsum("cqp,cpn->cqn", matrices, x.reshape(channels, -1, count))
    return out.reshape(channels, *window.outputs(x.shape, kernel.shape), count)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_tap(x: jax.Array, kernel: jax.Array, window: _Window, channels: int) -> jax.Array:
    """Depthwise, with an image shifted for each tap; `channels` is their axis, 0 or 3."""
    others = [axis for axis in range(4) if axis != channels]
    seen = window.seen(x.shape, kernel.shape)
    # As an array of its own: what makes x is not computed for every tap.
    x = jax.lax.optimization_barrier(window.padded(x))
    filters = kernel.reshape(-1, kernel.shape[-1])
    products = (
        _met(x, tap, seen, window.strides) * jnp.expand_dims(weight, others)
        for tap, weight in zip(window.taps(kernel.shape), filters, strict=True)
    )
    return functools.reduce(jnp.add, products)


def _by_tap_fwd(
    x: jax.Array, kernel: jax.Array, window: _Window, channels: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _by_tap(x, kernel, window, channels), (x, kernel)


def _by_tap_bwd(
    window: _Window, channels: int, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    # The gradient in x: the same with the kernel turned.
    back = _pad(gradient, *window.spread(gradient, x, kernel.shape))
    still = _Window((1, 1), ((0, 0), (0, 0)), window.dilation)
    of_x = _by_tap(back, kernel[::-1, ::-1], still, channels)

    # The gradient in the kernel, tap by tap in a loop: one program, and one buffer, for all taps.
    exact = jnp.promote_types(x.dtype, jnp.float32)
    others = tuple(axis for axis in range(4) if axis != channels)
    starts = jnp.asarray(list(window.taps(kernel.shape)))
    height, width = window.seen(x.shape, kernel.shape)

    def of_some(x: jax.Array, gradient: jax.Array) -> jax.Array:
        image = window.padded(x)

        def of_tap(start: jax.Array) -> jax.Array:
            shape = (len(x), height, width, x.shape[-1])
            met = jax.lax.dynamic_slice(image, (0, *start, 0), shape)
            met = met[:, :: window.strides[0], :: window.strides[1]]
            return jnp.sum(met * gradient, others, dtype=exact)

        return jax.lax.map(of_tap, starts)

    if channels == 0:
        of_kernel = of_some(x, gradient)
    else:
        # What a tap meets and its product with the gradient are in the cache, too.
        each = 2 * (x.size + gradient.size) // len(x) * x.dtype.itemsize
        of_kernel = _over_images(of_some, x, gradient, each)
    return of_x, of_kernel.reshape(kernel.shape).astype(kernel.dtype)


_by_tap.defvjp(_by_tap_fwd, _by_tap_bwd)
