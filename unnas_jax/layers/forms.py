"""How convolutions are computed where XLA's own are slow: in branches, and of several networks."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from unnas_jax.core import sharding
from unnas_jax.layers import convolution, onednn

_IN_BRANCH: contextvars.ContextVar[bool] = contextvars.ContextVar("in_branch", default=False)


@contextlib.contextmanager
def in_branch() -> Iterator[None]:
    """A block whose operations are traced as the branch of a conditional; see `product_conv`."""
    token = _IN_BRANCH.set(True)
    try:
        yield
    finally:
        _IN_BRANCH.reset(token)


def product_conv(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **same: Any
) -> jax.Array:
    """A convolution as matrix products, one for each of the kernel's pixels, if its stride is 1.

    XLA has no fast convolution for CPUs in the branches of conditionals (nor in loops): there it
    takes 3 to 13 times as long as this does, forward and backward, for 8 to 32 channels.
    """
    if tuple(strides) != (1, 1) or tuple(same["rhs_dilation"]) != (1, 1):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **same)
    (images, height, width, ins), outs = x.shape, kernel.shape[-1]
    wide = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    products = [
        wide[:, row : row + height, column : column + width].reshape(-1, ins) @ kernel[row, column]
        for row in range(kernel.shape[0])
        for column in range(kernel.shape[1])
    ]
    return sum(products[1:], start=products[0]).reshape(images, height, width, outs)


FORMS = ("grouped", "products")
"""How the convolutions of several networks in one program are computed; see `form`."""

_FORM: contextvars.ContextVar[str] = contextvars.ContextVar("form", default="")


@contextlib.contextmanager
def form(name: str) -> Iterator[None]:
    """A block in which convolutions are traced in one of the `FORMS`.

    Mapped over networks with kernels of their own, a convolution becomes one with a group of
    channels for each (`grouped`), for which GPUs have no fast programs; as a matrix product of
    patches it becomes a batched matrix product (`products`).
    """
    token = _FORM.set(name)
    try:
        yield
    finally:
        _FORM.reset(token)


def of_platform() -> str:
    """The form for the platform of what is traced: `products` on GPUs.

    On an H100 a step of 32 networks took 0.12 s by products and 3.1 s by groups (docs/scaling.md).
    """
    return "products" if sharding.platform() in ("gpu", "cuda", "rocm") else "grouped"


def patch_conv(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **same: Any
) -> jax.Array:
    """A convolution as one matrix product of patches; a depthwise one as a sum over its taps.

    Args:
      x: (N, H, W, C).
      kernel: (h, w, C / groups, D).
      strides: of rows and columns.
      padding: the pixels before and after, of rows and columns.
      **same: further arguments of `jax.lax.conv_general_dilated` that a `nn.Conv` gives.
    """
    (height, width, ins, outs), groups = kernel.shape, same["feature_group_count"]
    if ins != 1 and groups != 1 or ins == 1 and groups not in (1, outs):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **same)
    dilation = same["rhs_dilation"]
    if isinstance(padding, str):
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, (height, width), strict=True)]
        padding = jax.lax.padtype_to_pads(x.shape[1:3], reach, strides, padding)
    wide = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    sides = [
        (wide.shape[1 + axis] - dilation[axis] * (kernel.shape[axis] - 1) - 1) // strides[axis] + 1
        for axis in (0, 1)
    ]

    def met(row: int, column: int) -> jax.Array:
        """What a tap of the kernel is multiplied with."""
        first = (row * dilation[0], column * dilation[1])
        last = [f + (side - 1) * s + 1 for f, side, s in zip(first, sides, strides, strict=True)]
        images, channels = wide.shape[0], wide.shape[3]
        return jax.lax.slice(wide, (0, *first, 0), (images, *last, channels), (1, *strides, 1))

    taps = [(row, column) for row in range(height) for column in range(width)]
    if groups != 1:
        products = [met(*tap) * kernel[tap][0] for tap in taps]
        return functools.reduce(jnp.add, products)
    patches = jnp.concatenate([met(*tap) for tap in taps], axis=-1)
    product = patches.reshape(-1, height * width * ins) @ kernel.reshape(-1, outs)
    return product.reshape(len(x), *sides, outs)


# One object each, so that modules which have it are equal.
_SEVERAL = functools.partial(convolution.convolve, several=True)
_ALONE = functools.partial(onednn.convolve, otherwise=convolution.convolve)
_BRANCH = functools.partial(onednn.convolve, otherwise=product_conv)


def of_several() -> Any:
    """`patch_conv` in a block of that form; None, for XLA's own, everywhere else."""
    return patch_conv if _FORM.get() == "products" else None


def how(groups: int) -> Any:
    """The function that computes a convolution here instead of XLA's; None: XLA's does."""
    if several := of_several():
        return several
    if sharding.platform() != "cpu":
        return None
    if _IN_BRANCH.get() and groups == 1:
        return _BRANCH
    return _SEVERAL if _FORM.get() else _ALONE
