"""The last layers of a network, one per kind of answer; called as head(features, train)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unnas_jax.layers.blocks import Conv, batch_norm, uniform_fan_in


class ImageHead(nn.Module):
    """One answer for `group` consecutive images: pool each, concatenate, linear.

    Features (N, h, w, C) to float32 logits (N / group, classes). `group` is 1 for classification
    and rotation, the number of tiles for the jigsaw.
    """

    classes: int
    group: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """The logits of every group of images; nothing here differs in training."""
        del train
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

    Features (N, h, w, C) to float32 logits (N, h, w, classes) at the features' resolution; the
    task's score upsamples them (`unnas_jax.tasks.dense`), in pieces that fit into memory.
    """

    classes: int

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """The logits of every pixel; nothing here differs in training."""
        del train
        fan_in = features.shape[-1]
        return nn.Conv(
            self.classes,
            (1, 1),
            dtype=jnp.float32,
            kernel_init=uniform_fan_in(fan_in),
            bias_init=uniform_fan_in(fan_in),
            name="conv",
        )(features)


class AsppHead(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., DeepLabv3, 2017), then a `PixelHead`.

    Branches, each to `channels` with BN and ReLU: a 1x1 convolution; a 3x3 one per dilation rate;
    the image's mean through a 1x1 convolution, given to every pixel. Their concatenation goes
    through a 1x1 convolution to `channels`, BN and ReLU.

    Features (N, h, w, C) to float32 logits (N, h, w, classes), to be upsampled by the task's score.
    """

    classes: int
    channels: int
    rates: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """The logits of every pixel; batch statistics in training."""

        def layer(x: jax.Array, name: str, size: int = 1, rate: int = 1) -> jax.Array:
            x = Conv(
                self.channels, (size, size), dilation=rate, dtype=self.dtype, name=f"conv_{name}"
            )(x)
            return nn.relu(
                batch_norm(train=train, affine=True, dtype=self.dtype, name=f"bn_{name}")(x)
            )

        features = features.astype(self.dtype)
        branches = [layer(features, "pixel")]
        branches += [layer(features, f"rate_{rate}", 3, rate) for rate in self.rates]
        mean = jnp.mean(features, axis=(1, 2), keepdims=True, dtype=jnp.float32)
        image = layer(mean.astype(self.dtype), "image")
        branches.append(jnp.broadcast_to(image, branches[0].shape))
        x = layer(jnp.concatenate(branches, axis=-1), "join")
        return PixelHead(self.classes, name="classifier")(x, train)
