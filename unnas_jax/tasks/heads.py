"""The last layers of a network, one per kind of answer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.spaces.layers import uniform_fan_in



class ImageHead(nn.Module):
    """One answer for `group` consecutive images: pool each, concatenate, linear.

    Features (N, h, w, C) to float32 logits (N / group, classes). `group` is 1 for classification
    and rotation, the number of tiles for the jigsaw.
    """

    classes: int
    group: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        x = jnp.mean(features, axis=(1, 2), dtype=jnp.float32)
        x = x.reshape(-1, self.group * x.shape[-1])
        return nn.Dense(
            self.classes,
            dtype=jnp.float32,
            kernel_init=uniform_fan_in(x.shape[-1]),
            bias_init=uniform_fan_in(x.shape[-1]),
            name="linear",
        )(x)


class PixelHead(nn.Module):
    """One answer per pixel of the features: a 1x1 convolution with bias.

    Features (N, h, w, C) to logits (N, h, w, classes) at the features' resolution; the task's
    score upsamples them (`unnas_jax.tasks.dense`), in pieces that fit into memory.
    """

    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        fan_in = features.shape[-1]
        return nn.Conv(
            self.classes,
            (1, 1),
            dtype=self.dtype,
            kernel_init=uniform_fan_in(fan_in),
            bias_init=uniform_fan_in(fan_in),
            name="conv",
        )(features)
