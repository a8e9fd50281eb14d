"""Geometry on the host: from a decoded image or label map to a crop of uint8."""

import dataclasses
import io
import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]
"""A region: top, left, height and width in pixels."""

TrainCrop = Callable[[int, int, int, int, np.random.Generator], Box]

IGNORE = 255
"""The class of pixels that do not count."""

# A PNG: its first bytes, and the place in its header that tells a palette.
_PNG, _COLOUR_TYPE, _PALETTE = b"\x89PNG\r\n\x1a\n", 25, b"\x03"


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """The class of every pixel of an image, still encoded.

    Attributes:
      data: the content of a gray image file of 8 bits.
      table: 256 bytes, from the stored ids to the classes, or empty where they are the same.
    """

    data: bytes
    table: bytes = b""

    def decode(self) -> np.ndarray:
        """The classes, uint8 (height, width), `IGNORE` where there is none.

        Raises:
          ValueError: the data is no gray image of 8 bits.
        """
        ids = decode_gray(self.data)
        return ids if not self.table else cv2.LUT(ids, np.frombuffer(self.table, np.uint8))


def decode_gray(data: bytes) -> np.ndarray:
    """Decodes a gray image of 8 bits, to uint8 (height, width), every number as stored.

    In a PNG with a palette they are the numbers of its colours.

    Raises:
      ValueError: the data cannot be decoded, or has colours or more bits.
    """
    if data.startswith(_PNG) and data[_COLOUR_TYPE : _COLOUR_TYPE + 1] == _PALETTE:
        try:
            with Image.open(io.BytesIO(data), formats=("PNG",)) as palette:
                return np.array(palette, np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"cannot be decoded ({error})") from error
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error as error:
        raise ValueError(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise ValueError("cannot be decoded")
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError("is not a gray image of 8 bits")
    return image


RESAMPLINGS = ("area", "bilinear", "bilinear_cut_off")
"""How images are resized.

`area`: shrinking to less than half averages all source pixels that an output pixel covers
(INTER_AREA): bilinear interpolation would read four of them and alias, which a network can learn
instead of the picture. From a half on bilinear interpolation passes over no source pixel, and takes
a fifth of the time (0.10 against 0.52 ms for a crop of 224); it is also what enlarges, where
INTER_AREA would repeat pixels. Label maps take the class at the pixel's centre.

The PyTorch release interpolates at every scale (`bilinear`) and takes the class at the pixel's
corner; for colorization it cuts values off to whole numbers instead of rounding
(`bilinear_cut_off`).
"""


def cut(image: np.ndarray, box: Box, size: int, resampling: str = "area") -> np.ndarray:
    """A region of an image, resized.

    Args:
      image: uint8 (height, width, 3).
      box: the region.
      size: side of the result.
      resampling: one of `RESAMPLINGS`.

    Returns:
      uint8 (size, size, 3), contiguous.
    """
    top, left, height, width = box
    region = image[top : top + height, left : left + width]
    return resized(region, (size, size), resampling)


def resized(image: np.ndarray, size: tuple[int, int], resampling: str = "area") -> np.ndarray:
    """The whole of an image, uint8 (height, width, 3), in another size (height, width)."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return np.ascontiguousarray(image)
    if resampling == "bilinear_cut_off":
        return cv2.resize(image.astype(np.float32), size[::-1]).astype(np.uint8)
    shrinks = min(height, width) >= min(size) and max(height, width) >= 2 * max(size)
    area = resampling == "area" and shrinks
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)


LEAST_REDUCED = 4
"""No `reduction` of an image whose shorter side is less than so many times the result's."""


def reduction(box: Box, size: int) -> int:
    """By how much an image may be shrunk before a region is cut: 1, 2, 4 or 8.

    The region keeps at least twice the side of the result, so that averaging still decides, and its
    edges move by less than a quarter of the result's pixel.
    """
    side = min(box[2], box[3])
    return next((factor for factor in (8, 4, 2) if side >= 2 * size * factor), 1)


def reduced(box: Box, factor: int) -> Box:
    """The region of an image that is shrunk by a factor, to its nearest pixels."""
    top, left, height, width = (round(length / factor) for length in box)
    return top, left, height, width


def cut_map(classes: np.ndarray, box: Box, size: int, resampling: str = "area") -> np.ndarray:
    """The same region of a label map, uint8 (height, width) to (size, size): the nearest class.

    With `area` pixels are aligned by their centres as in `cut`, which plain INTER_NEAREST does not
    do; see `RESAMPLINGS`.
    """
    top, left, height, width = box
    region = classes[top : top + height, left : left + width]
    nearest = cv2.INTER_NEAREST_EXACT if resampling == "area" else cv2.INTER_NEAREST
    return cv2.resize(region, (size, size), interpolation=nearest)


def _visible_side(height: int, width: int, size: int, resize: float) -> int:
    """The side, in pixels of the image, of a crop of `size` once the short side is `resize`.

    Cutting this square first and then resizing it gives the same, to half a pixel of the image, as
    resizing the whole image first, for a fraction of the work; and an image of 10 x 10,000 pixels
    does not become one of 256 x 256,000 on the way.
    """
    short = min(height, width)
    return max(1, min(short, round(short * size / max(size, resize))))


def centre_box(height: int, width: int, size: int, resize: int) -> Box:
    """The evaluation crop: the short side to `resize` pixels, then the central square.

    Smaller images are enlarged.

    Args:
      height: of the image.
      width: of the image.
      size: side of the result.
      resize: short side before the crop; at least `size`, or `size` is taken.
    """
    side = _visible_side(height, width, size, resize)
    return (height - side) // 2, (width - side) // 2, side, side


def centre_crop(image: np.ndarray, size: int, resize: int) -> np.ndarray:
    """The evaluation crop of uint8 (height, width, 3): uint8 (size, size, 3)."""
    return cut(image, centre_box(image.shape[0], image.shape[1], size, resize), size)


def pad(image: np.ndarray, height: int, width: int, value: int | tuple[int, ...]) -> np.ndarray:
    """The whole image or label map, padded right and bottom with `value`.

    Raises:
      ValueError: the image is larger.
    """
    down, right = height - image.shape[0], width - image.shape[1]
    if down < 0 or right < 0:
        raise ValueError(f"is {image.shape[0]} x {image.shape[1]}, larger than {height} x {width}")
    result = np.empty((height, width, *image.shape[2:]), np.uint8)
    result[:] = value
    result[: image.shape[0], : image.shape[1]] = image
    return result


def _centre(height: int, width: int, size: int, resize: int, rng: np.random.Generator) -> Box:
    """The evaluation crop also in training."""
    del rng
    return centre_box(height, width, size, resize)


def _none(height: int, width: int, size: int, resize: int, rng: np.random.Generator) -> Box:
    """The whole image, which is `size` pixels square already, or else its largest square."""
    del resize, rng
    return centre_box(height, width, size, size)


def _square(height: int, width: int, side: int, rng: np.random.Generator) -> Box:
    """A square anywhere."""
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return top, left, side, side


def _resize_random(
    height: int, width: int, size: int, resize: int, rng: np.random.Generator
) -> Box:
    """The short side to `resize` pixels, then a square anywhere."""
    return _square(height, width, _visible_side(height, width, size, resize), rng)


def _scale_random(height: int, width: int, size: int, resize: int, rng: np.random.Generator) -> Box:
    """The short side to resize x 2^u pixels, u uniform in [-1, 1], then a square anywhere."""
    short = resize * 2.0 ** rng.uniform(-1.0, 1.0)
    return _square(height, width, _visible_side(height, width, size, short), rng)


def random_resized_box(height: int, width: int, rng: np.random.Generator) -> Box:
    """The region of a random resized crop (Szegedy et al., Going deeper with convolutions, 6).

    Its area is uniform in 8 to 100% of the image, the logarithm of its aspect uniform from 3/4 to
    4/3. After 10 regions that do not fit: the largest central one of a permitted aspect.
    """
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = max(1, min(width, round(height * 4 / 3)))
    h = max(1, min(height, round(width * 4 / 3)))
    return (height - h) // 2, (width - w) // 2, h, w


def _random_resized(
    height: int, width: int, size: int, resize: int, rng: np.random.Generator
) -> Box:
    """A random region resized to the crop."""
    del size, resize
    return random_resized_box(height, width, rng)


TRAIN_CROPS: dict[str, TrainCrop] = {
    "random_resized": _random_resized,
    "resize_random": _resize_random,
    "scale_random": _scale_random,
    "centre": _centre,
    "none": _none,
}
"""Name -> f(height, width, size, resize, rng) -> the region that becomes the crop of `size`.

Flips are made on the device.
"""
EVAL_CROPS = ("centre", "whole")
"""The central square; the whole image, padded right and bottom."""
