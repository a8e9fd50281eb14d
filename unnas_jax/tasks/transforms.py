"""From uint8 crops to augmented float images, on the device.

The host decodes and crops; everything else happens here, inside the jitted step. Every draw
comes from the key that the caller passes, so a step's examples are a function of (seed, step).
"""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from unnas_jax.config.sections import Input
from unnas_jax.core.errors import UserError
from unnas_jax.data.crops import IGNORE

Components = tuple[tuple[float, ...], ...]
"""Principal components of RGB values in columns: rows R, G, B."""

# AlexNet's of ImageNet (Krizhevsky et al., 2012).
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045], np.float32)
COMPONENTS: Components = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
_CUTOUT = 1  # Folded into a key, so that no other draw depends on the setting.

_LUMA = np.array([0.2125, 0.7154, 0.0721], np.float32)  # As scikit-image has it.


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The settings of the device transforms of one dataset and recipe.

    Attributes:
      mean, std: of the RGB channels, in [0, 1].
      lighting: standard deviation of the PCA lighting.
      gray: share of training images that are turned gray.
      pad: zeros around the normalised image before a random crop back to its size, in pixels.
      cutout: side of the square that training images lose, in pixels.
      cutout_share: the probability that an image loses it; it may be traced.
      components: of the PCA lighting.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    lighting: float = 0.0
    gray: float = 0.0
    pad: int = 0
    cutout: int = 0
    cutout_share: Any = 1.0
    components: Components = COMPONENTS

    @classmethod
    def create(cls, section: Input, dataset: Any) -> Self:
        """The augmentation of a config's section `input` on a `unnas_jax.data.Dataset`."""
        order = slice(None, None, -1 if section.swapped_statistics else 1)
        return cls(
            mean=tuple(dataset.mean)[order],
            std=tuple(dataset.std)[order],
            lighting=section.lighting,
            gray=section.gray,
            pad=section.pad,
            cutout=section.cutout,
            components=COMPONENTS[order],
        )

    def __call__(self, key: jax.Array, images: jax.Array, *, train: bool) -> jax.Array:
        """uint8 (B, S, S, 3) to float32 RGB of the same shape, near [0, 1]; augmented if `train`.

        Flip (of bytes, which are fewer to move than floats), gray, lighting, padded crop, cutout,
        in this order. Padding and what is cut out have the mean colour: zero once normalised.
        """
        if not train:
            return images.astype(jnp.float32) / 255.0
        colour_key, geometry_key = jax.random.split(key)
        flip_key, crop_key = jax.random.split(geometry_key)
        x = random_flip(flip_key, images).astype(jnp.float32) / 255.0
        x = self._recolour(colour_key, x)
        mean = np.asarray(self.mean, np.float32)
        x = self._crop(crop_key, x, mean)
        if self.cutout:
            key = jax.random.fold_in(geometry_key, _CUTOUT)
            x = cut_out(key, x, self.cutout, mean, self.cutout_share)
        return x

    def labels(self, key: jax.Array, labels: jax.Array, *, train: bool) -> jax.Array:
        """int32 (B, S, S) label maps, moved as `__call__` moves the images with the same key.

        Where a padded crop has no pixel the label is `IGNORE`.
        """
        if not train:
            return labels
        _, geometry_key = jax.random.split(key)
        flip_key, crop_key = jax.random.split(geometry_key)
        x = random_flip(flip_key, labels[..., None])
        return self._crop(crop_key, x, np.asarray([IGNORE], labels.dtype))[..., 0]

    def _recolour(self, key: jax.Array, x: jax.Array) -> jax.Array:
        gray_key, light_key = jax.random.split(key)
        if self.gray:
            x = random_gray(gray_key, x, self.gray)
        if self.lighting:
            x = lighting(light_key, x, self.lighting, self.components)
        return x

    def _crop(self, key: jax.Array, x: jax.Array, fill: np.ndarray) -> jax.Array:
        """The draws depend on the key and the batch's size only, not on the channels."""
        return padded_crop(key, x, self.pad, fill) if self.pad else x

    def normalise(self, x: jax.Array) -> jax.Array:
        """Float RGB (..., 3) minus the mean, over the deviation, per channel."""
        return (x - _per_channel(self.mean, x)) / _per_channel(self.std, x)


def cut_out(
    key: jax.Array, x: jax.Array, side: int, fill: np.ndarray, share: Any = 1.0
) -> jax.Array:
    """Replaces a square of images (N, H, W, C) by a colour (DeVries and Taylor, 2017).

    Its centre is any pixel, so that some of it may lie outside. Each image loses one with the
    probability `share`.
    """
    rows, columns = (
        jax.random.randint(k, (len(x), 1, 1, 1), 0, length)
        for k, length in zip(jax.random.split(key), x.shape[1:3], strict=True)
    )
    before, after = side // 2, side - side // 2
    lines = jnp.arange(x.shape[1]).reshape(1, -1, 1, 1)
    places = jnp.arange(x.shape[2]).reshape(1, 1, -1, 1)
    inside = (lines >= rows - before) & (lines < rows + after)
    inside &= (places >= columns - before) & (places < columns + after)
    inside &= jax.random.uniform(jax.random.fold_in(key, 1), (len(x), 1, 1, 1)) < share
    return jnp.where(inside, jnp.asarray(fill, x.dtype).reshape(1, 1, 1, -1), x)


def cutting_out(task: Any, share: Any) -> Any:
    """A task whose training images lose their square with a probability, which may be traced."""
    augmentation = getattr(task, "augmentation", None)
    if not isinstance(augmentation, Augmentation):
        raise UserError(
            f"config.method.cutout_rises=True: the task {task.name!r} has no `augmentation` "
            "(unnas_jax.tasks.transforms.Augmentation) that cuts out; use False"
        )
    augmentation = dataclasses.replace(augmentation, cutout_share=share)
    return dataclasses.replace(task, augmentation=augmentation)


def displayable(augmentation: Augmentation, x: Any) -> np.ndarray:
    """Normalised images (..., 3) as uint8 RGB for pictures; clipped."""
    rgb = np.asarray(x, np.float32) * np.asarray(augmentation.std) + np.asarray(augmentation.mean)
    return to_uint8(rgb)


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8; clipped."""
    return np.clip(np.round(255.0 * x), 0, 255).astype(np.uint8)


def _per_channel(values: Any, x: jax.Array) -> np.ndarray:
    """Values (C,), float32, in a shape that broadcasts along the last axis of x."""
    return np.asarray(values, np.float32).reshape((1,) * (x.ndim - 1) + (-1,))


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each of the images (B, H, W, C) left to right with probability one half."""
    flip = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def random_gray(key: jax.Array, images: jax.Array, probability: float) -> jax.Array:
    """Turns each of the images (B, H, W, 3) gray (their luma) with the given probability."""
    gray = jax.random.bernoulli(key, probability, (len(images), 1, 1, 1))
    return jnp.where(gray, _luma(images), images)


def _luma(images: jax.Array) -> jax.Array:
    """(..., 3) to (..., 1): by a sum, not a dot product, which a TPU would round to bfloat16."""
    return jnp.sum(images * _per_channel(_LUMA, images), axis=-1, keepdims=True)


def lighting(
    key: jax.Array, images: jax.Array, scale: float, components: Components = COMPONENTS
) -> jax.Array:
    """AlexNet's PCA lighting: one offset per image along the principal colours.

    Adds to the channels of each image `components @ (normal(0, scale) * eigenvalues)`.
    """
    draws = scale * jax.random.normal(key, (len(images), 1, 3), jnp.float32)
    rows = np.asarray(components, np.float32)[None]
    offsets = jnp.sum(rows * (draws * _EIGENVALUES[None, None]), axis=-1)
    return images + offsets[:, None, None, :]


def padded_crop(key: jax.Array, images: jax.Array, pad: int, value: np.ndarray) -> jax.Array:
    """Pads (B, S, S, C) by `pad` pixels of one value (C,) and crops back to S at a random place."""
    size, channels = images.shape[1], images.shape[-1]
    wide = jnp.broadcast_to(value, (len(images), size + 2 * pad, size + 2 * pad, channels))
    wide = wide.at[:, pad : pad + size, pad : pad + size].set(images)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pad + 1)
    return crops_at(wide, corners, size)


def random_crops(key: jax.Array, images: jax.Array, least: float) -> jax.Array:
    """A random region of each of the images (B, S, S, C), resized to S by linear interpolation.

    Its area is uniform from the share `least` to all of the image, the logarithm of its aspect
    from 3/4 to 4/3; sides that do not fit are cut to the image's.
    """
    size = images.shape[1]
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    area = jax.random.uniform(area_key, (len(images), 1), jnp.float32, least, 1.0)
    reach = np.log(4 / 3)
    aspect = jnp.exp(jax.random.uniform(aspect_key, area.shape, jnp.float32, -reach, reach))
    shares = jnp.sqrt(jnp.concatenate([area / aspect, area * aspect], axis=1))
    sides = size * jnp.minimum(shares, 1.0)
    corners = jax.random.uniform(place_key, sides.shape) * (size - sides)

    def resized(image: jax.Array, side: jax.Array, corner: jax.Array) -> jax.Array:
        scale = size / side
        found: jax.Array = jax.image.scale_and_translate(
            image, image.shape, (0, 1), scale, -corner * scale, "linear", antialias=False
        )
        return found

    return jax.vmap(resized)(images, sides, corners)


def random_jitter(key: jax.Array, images: jax.Array, strength: float = 0.4) -> jax.Array:
    """Other brightness, contrast and saturation for four of five of the images (B, S, S, 3).

    Each is a factor, uniform up to `strength` from 1, in this order (Chen et al., 2020, without the
    change of hue); results are cut to [0, 1].
    """
    draw_key, share_key = jax.random.split(key)
    shape = (3, len(images), 1, 1, 1)
    bright, contrast, colour = jax.random.uniform(
        draw_key, shape, jnp.float32, 1 - strength, 1 + strength
    )
    x = jnp.clip(bright * images, 0.0, 1.0)
    mean = jnp.mean(_luma(x), axis=(1, 2), keepdims=True)
    x = jnp.clip(mean + contrast * (x - mean), 0.0, 1.0)
    gray = _luma(x)
    x = jnp.clip(gray + colour * (x - gray), 0.0, 1.0)
    chosen = jax.random.bernoulli(share_key, 0.8, (len(images), 1, 1, 1))
    return jnp.where(chosen, x, jnp.clip(images, 0.0, 1.0))


def crops_at(images: jax.Array, corners: jax.Array, size: int) -> jax.Array:
    """From each of the images (B, H, W, C) the square of `size` pixels at its corner (B, 2)."""

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(
            image, (corner[0], corner[1], 0), (size, size, image.shape[-1])
        )

    return jax.vmap(crop)(images, corners)
