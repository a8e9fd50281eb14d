"""Synthetic regression targets (GenNAS: Li et al., NeurIPS 2021, section 3 and its code).

A target is a sum of bases, each a set of images of 8x8 pixels with values from -1 to 1 times a
level: waves along an axis or along both, dots, blurred dots, the input itself at low resolution.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

PHASES = 32
"""The waves of a frequency; even ones are sines, odd ones cosines."""


@dataclasses.dataclass(frozen=True)
class Waves:
    """Waves of random phases: 2 pi beta times the pixel, counted from 1, plus the phase.

    Attributes:
      level: what they are multiplied with.
      betas: the frequencies, in waves a pixel.
      plane: waves along both axes, of every pair of frequencies, each also upside down; else along
        the rows or the columns.
      local: drawn anew for every image; else the same for all.
    """

    level: float
    betas: tuple[float, ...]
    plane: bool = False
    local: bool = True


@dataclasses.dataclass(frozen=True)
class Dots:
    """Pixels of -1 or 1 at random places, zeros elsewhere.

    Attributes:
      level: what they are multiplied with.
      part: of the pixels that are dots, rounded down to whole ones.
      blurred: with a Gaussian of one pixel, then divided by the largest magnitude of a channel.
      local: drawn anew for every image; else the same for all.
    """

    level: float
    part: float
    blurred: bool = False
    local: bool = True


@dataclasses.dataclass(frozen=True)
class Resized:
    """The images at the target's resolution (nearest pixels), from -1 to 1 over the batch."""

    level: float


Basis = Waves | Dots | Resized


def waves(rng: np.random.Generator, basis: Waves, channels: int, side: int) -> np.ndarray:
    """So many different waves (side, side, channels) of those that a basis has, without level."""
    pixels = 2 * np.pi * np.arange(1, side + 1)
    betas = np.array(basis.betas)
    if basis.plane:
        first, second = np.repeat(betas, len(betas)), np.tile(betas, len(betas))
        phases = rng.uniform(0, 2 * np.pi, (len(first), PHASES))
        # Both axes carry the phase.
        angles = (
            pixels[:, None, None, None] * first[:, None]
            + pixels[None, :, None, None] * second[:, None]
            + 2 * phases
        )
        values = _alternating(angles)
        found = np.concatenate([values, values[::-1]], axis=-1)
    else:
        phases = rng.uniform(0, 2 * np.pi, (len(betas), PHASES))
        line = _alternating(pixels[:, None, None] * betas[:, None] + phases)
        shape = (side, side, *line.shape[1:])
        found = np.concatenate(
            [np.broadcast_to(line[:, None], shape), np.broadcast_to(line[None], shape)], axis=-1
        )
    found = found.reshape(side, side, -1)
    if channels > found.shape[-1]:
        raise ValueError(f"{channels} channels of {found.shape[-1]} waves")
    return found[..., rng.permutation(found.shape[-1])[:channels]]


def _alternating(angles: np.ndarray) -> np.ndarray:
    odd = np.arange(angles.shape[-1]) % 2 == 1
    return np.where(odd, np.cos(angles), np.sin(angles))


def dots(rng: np.random.Generator, basis: Dots, channels: int, side: int) -> np.ndarray:
    """Dots (side, side, channels), without level."""
    count = int(basis.part * side**2)
    order = rng.permuted(np.tile(np.arange(side**2)[:, None], channels), axis=0)
    signs = rng.choice([-1.0, 1.0], order.shape)
    found = np.where(order < count, signs, 0.0).reshape(side, side, channels)
    if basis.blurred:
        found = ndimage.gaussian_filter(found, (1, 1, 0))
        found = found / np.maximum(np.abs(found).max((0, 1)), np.finfo(float).tiny)
    return found


def resized(rng: np.random.Generator, images: np.ndarray, channels: int, side: int) -> np.ndarray:
    """The images (N, side, side, channels), their channels repeated and shuffled."""
    step = np.array(images.shape[1:3]) / side
    rows, columns = (np.floor(np.arange(side) * s).astype(int) for s in step)
    small = images[:, rows][:, :, columns].astype(float)
    small = small - small.min()
    small = 2 * (small / max(small.max(), np.finfo(float).tiny) - 0.5)
    return small[..., rng.permutation(max(1000, channels))[:channels] % images.shape[-1]]


def target(
    rng: np.random.Generator, bases: Sequence[Basis], images: np.ndarray, channels: int, side: int
) -> np.ndarray:
    """The sum of some bases.

    Args:
      rng: of all draws.
      bases: what is summed.
      images: (N, H, W, C), what the network sees.
      channels: of the target.
      side: of the target, in pixels.

    Returns:
      float32 (N, side, side, channels).
    """
    total = np.zeros((len(images), side, side, channels))
    for basis in bases:
        if isinstance(basis, Resized):
            total += basis.level * resized(rng, images, channels, side)
            continue
        draw = waves if isinstance(basis, Waves) else dots
        drawn = [draw(rng, basis, channels, side) for _ in (images if basis.local else images[:1])]  # type: ignore[arg-type]
        total += basis.level * np.stack(drawn)
    return total.astype(np.float32)
