"""Synthetic regression targets (GenNAS: Li et al., NeurIPS 2021, section 3 and its code).

A target is a sum of bases, each a set of images of 8x8 pixels with values from -1 to 1 times a
level: waves along an axis or along both, dots, blurred dots, the input itself at low resolution.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # Loads its parts when they are first used.

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


def waves(key: jax.Array, basis: Waves, channels: int, side: int) -> jax.Array:
    """`channels` different waves of a basis, (side, side, channels), without its level."""
    phase_key, choice_key = jax.random.split(key)
    betas, pixels = np.array(basis.betas), 2 * np.pi * np.arange(1, side + 1)
    pairs = len(betas) ** 2 if basis.plane else len(betas)
    phases = jax.random.uniform(phase_key, (pairs, PHASES), jnp.float32, 0, 2 * np.pi)
    # Either each wave and its reflection, or each along the rows and along the columns.
    total = 2 * pairs * PHASES
    if channels > total:
        raise ValueError(f"{channels} channels of {total} waves")
    chosen = jax.random.permutation(choice_key, total)[None, None, :channels]
    second, rest = jnp.divmod(chosen, pairs * PHASES)
    pair, number = jnp.divmod(rest, PHASES)
    phase = phases[pair, number]
    rows, columns = jnp.asarray(pixels[:, None, None]), jnp.asarray(pixels[None, :, None])
    if basis.plane:
        # Both axes carry the phase.
        first = jnp.asarray(np.repeat(betas, len(betas)))[pair]
        other = jnp.asarray(np.tile(betas, len(betas)))[pair]
        found = _alternating(rows * first + columns * other + 2 * phase, number)
        return jnp.where(second == 1, found[::-1], found)
    beta = jnp.asarray(betas)[pair]
    return _alternating(jnp.where(second == 1, columns, rows) * beta + phase, number)


def _alternating(angles: jax.Array, number: jax.Array) -> jax.Array:
    return jnp.where(number % 2 == 1, jnp.cos(angles), jnp.sin(angles))


def dots(key: jax.Array, basis: Dots, channels: int, side: int) -> jax.Array:
    """Dots (side, side, channels), without the level of the basis."""
    place_key, sign_key = jax.random.split(key)
    count, places = int(basis.part * side**2), np.tile(np.arange(side**2)[:, None], channels)
    order = jax.random.permutation(place_key, places, axis=0, independent=True)
    signs = jax.random.rademacher(sign_key, order.shape, jnp.float32)
    found = jnp.where(order < count, signs, 0.0).reshape(side, side, channels)
    if basis.blurred:
        blur = scipy.ndimage.gaussian_filter1d(np.eye(side), 1.0, axis=0).astype(np.float32)
        exact = jax.lax.Precision.HIGHEST
        found = jnp.einsum("ai,bj,ijc->abc", blur, blur, found, precision=exact)
        most = jnp.abs(found).max((0, 1), keepdims=True)
        found = found / jnp.maximum(most, np.finfo(np.float32).tiny)
    return found


def resized(
    key: jax.Array,
    images: jax.Array,
    channels: int,
    side: int,
    bounds: tuple[float, float] | None = None,
) -> jax.Array:
    """The images (N, side, side, channels), their channels repeated and shuffled.

    Args:
      key: of the shuffling.
      images: (N, H, W, C).
      channels, side: of the result.
      bounds: the values that become -1 and 1; None: the least and the most of the small images.
    """
    step = np.array(images.shape[1:3]) / side
    rows, columns = (np.floor(np.arange(side) * s).astype(int) for s in step)
    small = images[:, rows][:, :, columns].astype(jnp.float32)
    low, high = (small.min(), small.max()) if bounds is None else map(jnp.float32, bounds)
    small = 2 * (small - low) / jnp.maximum(high - low, np.finfo(np.float32).tiny) - 1
    order = jax.random.permutation(key, max(1000, channels))[:channels]
    return small[..., order % images.shape[-1]]


def target(
    key: jax.Array,
    bases: Sequence[Basis],
    images: jax.Array,
    records: jax.Array,
    channels: int,
    side: int,
    bounds: tuple[float, float] | None = None,
) -> jax.Array:
    """The sum of some bases.

    Args:
      key: of all draws.
      bases: what is summed.
      images: (N, H, W, C), what the network sees.
      records: int (N,), the images' numbers: a number has the same local waves and dots always.
      channels: of the target.
      side: of the target, in pixels.
      bounds: see `resized`.

    Returns:
      float32 (N, side, side, channels).
    """
    total = jnp.zeros((len(images), side, side, channels), jnp.float32)
    for number, basis in enumerate(bases):
        own = jax.random.fold_in(key, number)
        if isinstance(basis, Resized):
            total += basis.level * resized(own, images, channels, side, bounds)
            continue
        draw: Any = waves if isinstance(basis, Waves) else dots
        if basis.local:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(own, records)
            total += basis.level * jax.vmap(lambda k: draw(k, basis, channels, side))(keys)  # noqa: B023
        else:
            total += basis.level * draw(own, basis, channels, side)[None]
    return total
