"""Decoding and geometry on the host: from the bytes of a file to a uint8 crop."""

import io
import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageOps

# Images are decoded in parallel by many threads or processes, each of which would otherwise start
# as many threads of OpenCV's own as there are cores.
cv2.setNumThreads(1)

TrainCrop = Callable[[np.ndarray, int, int, np.random.Generator], np.ndarray]


def _over_white(image: Image.Image) -> np.ndarray:
    """Composites over white, as a page or viewer shows it.

    What lies under fully transparent pixels is arbitrary, often leftovers of the editor.
    """
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def _transparent(data: bytes, apply_exif: bool) -> np.ndarray | None:
    """The image if it has transparency, which OpenCV would drop, otherwise None."""
    if data.startswith(b"\xff\xd8"):  # JPEG has none, and is what must be fast.
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if not image.has_transparency_data:
                return None
            return _over_white(ImageOps.exif_transpose(image) if apply_exif else image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # Left to OpenCV, which knows other formats and limits.


def decode(data: bytes, *, apply_exif: bool) -> np.ndarray:
    """Decodes an image to uint8 RGB of shape (height, width, 3).

    Gray, palette, CMYK and 16-bit images become RGB of 8 bits; transparent images are laid over
    white.

    Args:
      data: the content of a JPEG, PNG or WebP file.
      apply_exif: turns the image upright as its EXIF orientation says.

    Raises:
      ValueError: the data cannot be decoded.
    """
    if not data:
        raise ValueError("no data")
    transparent = _transparent(data, apply_exif)
    if transparent is not None:
        return transparent
    flags = cv2.IMREAD_COLOR_RGB | (0 if apply_exif else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise ValueError("cannot be decoded")
    return image


def _resize(region: np.ndarray, size: int) -> np.ndarray:
    """Resizes a region to (size, size, 3).

    Shrinking averages all source pixels that an output pixel covers (INTER_AREA): bilinear
    interpolation would read four of them and alias, which a network can learn instead of the
    picture. Enlarging interpolates bilinearly, where INTER_AREA would repeat pixels.
    """
    height, width = region.shape[:2]
    if height == width == size:
        return np.ascontiguousarray(region)
    shrink = height >= size and width >= size
    return cv2.resize(
        region, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    )


def _visible_side(image: np.ndarray, size: int, resize: int) -> int:
    """The side, in pixels of `image`, of a crop of `size` once the short side is `resize`.

    Cutting this square first and resizing only it shows the same as resizing the whole image and
    cutting then, to half a pixel of the image, at a fraction of the work: and an image of
    10 x 10,000 pixels does not become one of 256 x 256,000 on the way.
    """
    short = min(image.shape[:2])
    return max(1, min(short, round(short * size / max(size, resize))))


def centre_crop(image: np.ndarray, size: int, resize: int) -> np.ndarray:
    """The evaluation crop: the short side to `resize` pixels, then the central square.

    Smaller images are enlarged.

    Args:
      image: uint8 (height, width, 3).
      size: side of the result.
      resize: short side before the crop; at least `size`, or `size` is taken.

    Returns:
      uint8 (size, size, 3).
    """
    side = _visible_side(image, size, resize)
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return _resize(image[top : top + side, left : left + side], size)


def _centre(image: np.ndarray, size: int, resize: int, rng: np.random.Generator) -> np.ndarray:
    """The evaluation crop also in training."""
    del rng
    return centre_crop(image, size, resize)


def _none(image: np.ndarray, size: int, resize: int, rng: np.random.Generator) -> np.ndarray:
    """The whole image, which is `size` pixels square already, or else its largest square."""
    del resize, rng
    return centre_crop(image, size, size)


def _resize_random(
    image: np.ndarray, size: int, resize: int, rng: np.random.Generator
) -> np.ndarray:
    """The short side to `resize` pixels, then a square anywhere."""
    side = _visible_side(image, size, resize)
    top = int(rng.integers(image.shape[0] - side + 1))
    left = int(rng.integers(image.shape[1] - side + 1))
    return _resize(image[top : top + side, left : left + side], size)


def random_resized_box(
    height: int, width: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """The region of a random resized crop (Szegedy et al., Going deeper with convolutions, 6).

    Its area is uniform in 8 to 100% of the image, the logarithm of its aspect uniform from 3/4 to
    4/3. After 10 regions that do not fit: the largest central one of a permitted aspect.

    Returns:
      (top, left, height, width) in pixels.
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
    image: np.ndarray, size: int, resize: int, rng: np.random.Generator
) -> np.ndarray:
    """A random region resized to the crop."""
    del resize
    top, left, h, w = random_resized_box(image.shape[0], image.shape[1], rng)
    return _resize(image[top : top + h, left : left + w], size)


TRAIN_CROPS: dict[str, TrainCrop] = {
    "random_resized": _random_resized,
    "resize_random": _resize_random,
    "centre": _centre,
    "none": _none,
}
"""Name -> f(image, size, resize, rng) -> uint8 (size, size, 3). Flips are made on the device."""
