"""Colorization (Zhang et al., 2016): the colour class of every pixel from its lightness."""

import dataclasses
from typing import Any, ClassVar, Self

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.config.sections import TaskConfig
from unnas_jax.data.crops import IGNORE
from unnas_jax.layers import heads
from unnas_jax.tasks import base, dense
from unnas_jax.tasks.transforms import Augmentation, to_uint8

# The 313 colour centres: in each row of constant a, every multiple of 10 from the first b to the
# last. Class ids count along b, row by row.
AB_ROWS = np.array(
    [
        (-90, 50, 90), (-80, 20, 90), (-70, 0, 90), (-60, -20, 90), (-50, -30, 100),
        (-40, -40, 100), (-30, -50, 100), (-20, -50, 100), (-10, -60, 100), (0, -70, 100),
        (10, -80, 90), (20, -80, 90), (30, -90, 90), (40, -100, 90), (50, -100, 80),
        (60, -110, 80), (70, -110, 80), (80, -110, 70), (90, -110, 70), (100, -90, 0),
    ]
)  # fmt: skip
_ROW_SIZES = (AB_ROWS[:, 2] - AB_ROWS[:, 1]) // 10 + 1
_ROW_STARTS = np.concatenate([[0], np.cumsum(_ROW_SIZES)[:-1]])
NUM_COLORS = int(_ROW_SIZES.sum())

_NO_COLOR = -1  # The class of padding, which does not count.

# sRGB to XYZ with a D65 white point, the white of the 2 degree observer, as in scikit-image.
_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ],
    np.float32,
)
_WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)


def centres() -> np.ndarray:
    """The (a, b) of every colour class, float32 (313, 2)."""
    return np.array(
        [(a, b) for a, first, last in AB_ROWS for b in range(first, last + 1, 10)], np.float32
    )


def rgb_to_lab(rgb: jax.Array) -> jax.Array:
    """CIE L*a*b* of sRGB values (..., 3) in [0, 1] (IEC 61966-2-1, D65), float32.

    Sums replace dot products, which a TPU would round to bfloat16.
    """
    linear = jnp.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    ones = (1,) * (rgb.ndim - 1)
    xyz = jnp.sum(linear[..., None, :] * _XYZ.reshape(*ones, 3, 3), axis=-1)
    xyz = xyz / _WHITE.reshape(*ones, 3)
    # The cube root's gradient is never needed; the guard keeps its argument positive.
    f = jnp.where(xyz > 0.008856, jnp.cbrt(jnp.maximum(xyz, 0.008856)), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return jnp.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def color_classes(ab: jax.Array) -> jax.Array:
    """The class of the nearest colour centre of (..., 2) values, int32 (...).

    Exact: within a row of constant a the nearest centre is the nearest multiple of 10 clipped to
    the row, so 20 candidates decide, not 313. Of equally near centres the lowest class wins.
    """
    a, b = ab[..., 0], ab[..., 1]
    # Subtracted first, which is exact near a tie: XLA multiplies by 0.1 instead of dividing by 10.
    nearest_b = jnp.ceil((b - 5.0) / 10.0) * 10.0
    best = jnp.full(a.shape, jnp.inf, jnp.float32)
    classes = jnp.zeros(a.shape, jnp.int32)
    for (row_a, first, last), start in zip(AB_ROWS.tolist(), _ROW_STARTS.tolist(), strict=True):
        row_b = jnp.clip(nearest_b, first, last)
        distance = (a - row_a) ** 2 + (b - row_b) ** 2
        closer = distance < best
        ids = start + ((row_b - first) / 10.0).astype(jnp.int32)
        best = jnp.where(closer, distance, best)
        classes = jnp.where(closer, ids, classes)
    return classes


@dataclasses.dataclass(frozen=True)
class Colorization(base.Task):
    """Lightness in, one of 313 colours out, for every pixel."""

    name: ClassVar[str] = "colorization"
    dense: ClassVar[bool] = True
    colours: ClassVar[bool] = True

    augmentation: Augmentation
    num_classes: int = NUM_COLORS
    input_channels: int = 1

    @classmethod
    def create(cls, config: TaskConfig, dataset: Any) -> Self:
        """The task of a config on a dataset."""
        return cls(Augmentation.create(config.input, dataset))

    def examples(self, key: jax.Array, batch: base.Batch, *, train: bool) -> base.Examples:
        """L / 100, normalised by the means of the channels' means and deviations; colour classes.

        Lighting can push values out of the sRGB cube; they are clipped to it. Where a padded crop
        has no pixel the class is -1, which does not count.
        """
        rgb = self.augmentation(key, batch["image"], train=train)
        lab = rgb_to_lab(jnp.clip(rgb, 0.0, 1.0))
        mean, std = np.mean(self.augmentation.mean), np.mean(self.augmentation.std)
        lightness = (lab[..., :1] / 100.0 - np.float32(mean)) / np.float32(std)
        classes = color_classes(lab[..., 1:])
        if train and self.augmentation.pad:
            inside = self.augmentation.labels(key, jnp.zeros_like(classes), train=True) != IGNORE
            classes = jnp.where(inside, classes, _NO_COLOR)
        return base.Examples(lightness, classes, base.image_weights(batch))

    def panels(self, examples: base.Examples, dataset: Any) -> list[list[base.Panel]]:
        """The lightness; and with it the colours of the classes."""
        mean, std = np.mean(self.augmentation.mean), np.mean(self.augmentation.std)
        lightness = np.asarray(examples.inputs)[..., 0] * std + mean
        rows = []
        for light, target in zip(lightness, np.asarray(examples.targets), strict=True):
            ab = np.where(target[..., None] == _NO_COLOR, 0.0, centres()[target])
            lab = np.concatenate([100.0 * light[..., None], ab], axis=-1, dtype=np.float32)
            # Not every centre is a colour at every lightness: values are clipped.
            painted = to_uint8(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB))
            gray = to_uint8(np.repeat(light[..., None], 3, axis=-1))
            words = f"{len(np.unique(target[target != _NO_COLOR]))} colour classes"
            rows.append([base.Panel("lightness", gray), base.Panel(words, painted)])
        return rows

    def head(self, dtype: Any) -> nn.Module:
        """A 1x1 convolution; `score` upsamples."""
        del dtype
        return heads.PixelHead(self.num_classes)

    def score(self, outputs: jax.Array, examples: base.Examples, *, train: bool) -> base.Sums:
        """Per-pixel cross entropy and hits at the input's resolution."""
        return dense.pixel_score(outputs, examples.targets, examples.weights)
