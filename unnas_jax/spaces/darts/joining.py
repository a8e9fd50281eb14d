"""Joins dense convolutions of a fused cell's edges to one."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from unnas_jax.layers.blocks import gradient_at_once, in_lanes


@dataclasses.dataclass(frozen=True)
class Joining:
    """The dense convolutions of the edges that leave a state, some of them joined to one.

    Those of several edges are computed as one of up to 128 channels, with zeros between the edges:
    matrix units are that wide, and fewer channels leave them and the lanes of memory empty. From 64
    channels on an edge is faster by itself.

    Attributes:
      edges: that leave the state.
      channels: of an edge.
      few: whether images are too few to fill the lanes of a TPU. Channels then fill them better,
        and XLA has to be told so.
    """

    edges: int
    channels: int
    few: bool

    @property
    def groups(self) -> list[slice]:
        """The edges whose convolutions are one."""
        size = min(self.edges, 128 // self.channels) if self.channels < 64 else 1
        return [slice(k, min(k + size, self.edges)) for k in range(0, self.edges, size)]

    @property
    def paired(self) -> bool:
        """Whether a 3x3 and a 5x5 operation are joined, too, as few images leave room for it."""
        return self.few and 2 * self.edges * self.channels <= 128

    @property
    def units(self) -> list[slice]:
        """The edges of one convolution; a pair of operations counts as twice the edges."""
        return [slice(0, 2 * self.edges)] if self.paired else self.groups

    def state(self, x: jax.Array) -> jax.Array:
        """A state; the channels of one alone may be fewer than the images."""
        return in_lanes(x, axis=0) if self.few and len(x) > self.channels else x

    def of_edges(self, x: jax.Array, some: slice) -> jax.Array:
        """The channels of some edges."""
        return x[..., some.start * self.channels : some.stop * self.channels]

    def convolve(self, x: jax.Array, kernel: jax.Array, dilation: int, stride: int) -> jax.Array:
        """The convolution of (N, H, W, C) with (k, k, C, C'), padded to keep H and W."""
        pad = dilation * (len(kernel) // 2)
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((pad, pad), (pad, pad)),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.few:
            return in_lanes(x, axis=3)
        return gradient_at_once(x) if len(kernel) == 5 else x

    def kernels_of_pairs(self, kernels: list[list[jax.Array]]) -> list[list[jax.Array]]:
        """The kernels of every operation by edge, those of a pair in one list: 3x3, then 5x5."""
        if not self.paired:
            return kernels
        middle = ((1, 1), (1, 1), (0, 0), (0, 0))  # 3x3 taps are the middle of 5x5.
        return [
            [jnp.pad(kernel, middle) for kernel in three] + five
            for three, five in zip(kernels[::2], kernels[1::2], strict=True)
        ]

    def factors_of_pairs(self, factors: list[jax.Array]) -> list[jax.Array]:
        """The factors of two operations' outputs, by channel; for a pair in one array."""
        return [jnp.concatenate(factors)] if self.paired else factors

    def sum_of_pair(self, pair: jax.Array) -> jax.Array:
        """The sum over a pair, as a product: so is its gradient, where that of a split copies."""
        halves = jnp.tile(jnp.eye(self.edges * self.channels, dtype=pair.dtype), (2, 1))
        return jnp.einsum("nhwc,cd->nhwd", pair, halves)


def from_all(kernels: Sequence[jax.Array]) -> jax.Array:
    """The kernel of the edges' outputs side by side, of one input."""
    return jnp.concatenate(kernels, axis=-1)


def from_each(kernels: Sequence[jax.Array]) -> jax.Array:
    """The kernel of every edge's output of its own input: zeros between different edges."""
    rows = []
    for k, kernel in enumerate(kernels):
        channels = kernel.shape[-1]
        zeros = (k * channels, (len(kernels) - 1 - k) * channels)
        rows.append(jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), zeros)))
    return jnp.concatenate(rows, axis=2)
