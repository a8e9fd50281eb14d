"""The last layers of a network, one per kind of answer; called as head(features, train)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.layers import forms
from unnas_jax.layers.blocks import Conv, batch_norm, uniform_fan_in


def _linear(x: jax.Array, features: int, name: str) -> jax.Array:
    """A linear layer with bias, in float32, from within a module's `__call__`."""
    start = uniform_fan_in(x.shape[-1])
    layer = nn.Dense(features, dtype=jnp.float32, kernel_init=start, bias_init=start, name=name)
    return layer(x)


def _pointwise(x: jax.Array, features: int, name: str) -> jax.Array:
    """A 1x1 convolution with bias, in float32, from within a module's `__call__`."""
    start = uniform_fan_in(x.shape[-1])
    layer = nn.Conv(
        features,
        (1, 1),
        dtype=jnp.float32,
        kernel_init=start,
        bias_init=start,
        conv_general_dilated=forms.of_several(),
        name=name,
    )
    return layer(x)


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
        return _linear(x.reshape(-1, self.group * x.shape[-1]), self.classes, "linear")


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
        return _pointwise(features, self.classes, "conv")


class PatchHead(nn.Module):
    """The values of all pixels: every pixel of the features answers for its square of the input.

    A 1x1 convolution, whose channels become the square's pixels (Shi et al., 2016; SimMIM: Xie et
    al., 2022). Features (N, h, w, C) to float32 (N, side, side, channels).
    """

    side: int
    channels: int = 3

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """The values of every pixel; nothing here differs in training."""
        del train
        count, rows, columns, _ = features.shape
        square = -(-self.side // min(rows, columns))
        x = _pointwise(features, square**2 * self.channels, "conv")
        x = x.reshape(count, rows, columns, square, square, self.channels)
        x = jnp.swapaxes(x, 2, 3).reshape(count, rows * square, columns * square, self.channels)
        return x[:, : self.side, : self.side]


class ProjectionHead(nn.Module):
    """A point for every image: pooling, a hidden layer as wide as the features, ReLU, a linear one.

    As in SimCLR (Chen et al., 2020). Features (N, h, w, C) to float32 (N, dimensions).
    """

    dimensions: int

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """The points; nothing here differs in training."""
        del train
        x = jnp.mean(features, axis=(1, 2), dtype=jnp.float32)
        return _linear(nn.relu(_linear(x, x.shape[-1], "hidden")), self.dimensions, "linear")


class StageHeads(nn.Module):
    """Batch norm and a 1x1 convolution with bias for the features of every stage.

    Attributes:
      channels: of the answer of each stage.
      side: of the answers; features of other sides are resized to the nearest pixels.
    """

    channels: tuple[int, ...]
    side: int

    @property
    def stages(self) -> bool:
        """True: it is called with the ends of all stages; see `unnas_jax.spaces.stages`."""
        return True

    @nn.compact
    def __call__(self, features: Sequence[jax.Array], train: bool) -> list[jax.Array]:
        """Features (N, H, W, C) of every stage to (N, side, side, channels).

        Raises:
          UserError: the network has another number of stages.
        """
        if isinstance(features, jax.Array):
            raise UserError(
                "a head for the ends of stages, which the networks of this space do not give it; "
                "see unnas_jax.spaces.stages, or use another task"
            )
        if len(features) != len(self.channels):
            raise UserError(
                f"a head for networks of {len(self.channels)} stages, and this one has "
                f"{len(features)}; use a deeper network or another task"
            )
        outputs = []
        for k, (x, channels) in enumerate(zip(features, self.channels, strict=True)):
            rows, columns = (np.arange(self.side) * size // self.side for size in x.shape[1:3])
            if x.shape[1:3] != (self.side, self.side):
                x = x[:, rows][:, :, columns]
            x = batch_norm(train=train, affine=True, dtype=jnp.float32, name=f"bn_{k}")(x)
            outputs.append(_pointwise(x, channels, f"conv_{k}"))
        return outputs


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
