"""Partial channels (PC-DARTS, Xu et al., 2020): operations work on one channel of K of a state.

The others bypass them. On an edge of weight b, with x1 the first C / K channels of the state x and
x2 the rest,

    edge(x) = b * shuffle([mixed operations of x1, x2])

where at stride 2 the maxima of 2x2 pixels take the place of x2. A shuffle in K groups puts channels
of all parts in front, so that K edges in a row work on every channel. The channels may be on any
axis.
"""

import jax
import jax.numpy as jnp

from unnas_jax.layers.pooling import max_pool


def parted(x: jax.Array, parts: int, axis: int) -> tuple[jax.Array, jax.Array]:
    """The channels that are worked on, C / K of them, and the others."""
    first, rest = jnp.split(x, [x.shape[axis] // parts], axis)
    return first, rest


def bypassed(x: jax.Array, stride: int) -> jax.Array:
    """What the other channels (A, H, W, B) become: (A, ceil(H / stride), ceil(W / stride), B)."""
    if stride == 1:
        return x
    rows, columns = (size % 2 for size in x.shape[1:3])
    pads = ((0, 0), (0, rows), (0, columns), (0, 0))
    return max_pool(jnp.pad(x, pads, constant_values=-jnp.inf), 2, 2, 0)


def shuffled(parts: list[jax.Array], groups: int, axis: int) -> jax.Array:
    """Both joined, and channel g * C / K + j moved to j * K + g (K `groups`)."""
    x = jnp.concatenate(parts, axis)
    axis %= x.ndim
    shape = x.shape[:axis], x.shape[axis + 1 :]
    size = x.shape[axis] // groups
    by_group = x.reshape(*shape[0], groups, size, *shape[1])
    return jnp.swapaxes(by_group, axis, axis + 1).reshape(x.shape)
