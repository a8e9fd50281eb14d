"""Tells whether a file is a whole image that training can decode, and facts of the image.

Pillow warns of odd metadata; callers ignore its warnings, because pixels are what counts.
"""

import dataclasses
import math

import cv2
import numpy as np
from PIL import Image

from unnas_jax.data import decoding

_LOOKED_AT = 1_000_000  # Pixels of an image that tell whether it has colours.
# Levels by which red, green and blue differ at most in an image without colour: JPEG's rounding.
_COLOURLESS = 12


@dataclasses.dataclass(frozen=True)
class Finding:
    """Facts of a file.

    Attributes:
      reason: why it cannot be used, as the continuation of its name; '' if it can.
      colourless: red, green and blue are the same in all of it.
      bits: the bits that its values fill if it stores more than 8; otherwise 0.
    """

    reason: str = ""
    colourless: bool = False
    bits: int = 0


def pixels(image: Image.Image, max_pixels: int = decoding.MAX_PIXELS) -> int:
    """The pixels of an image of which no more than the header was read.

    Raises:
      decoding.Undecodable: it has more than `max_pixels`.
    """
    count = math.prod(image.size)
    if count > max_pixels:
        raise decoding.Undecodable(f"has {count:,} pixels, more than {max_pixels:,}")
    return count


def examine(data: bytes, *, apply_exif: bool = False, full: bool = False) -> Finding:
    """Reads an image as training does, and tells a truncated file from a whole one.

    Pillow finds where a file ends too early (OpenCV fills the rest with gray), `decoding.decode` is
    what training calls. Of a JPEG both decode an eighth of the resolution, which reads all of the
    file in a third of the time.

    Args:
      data: the content of a file, of an image not larger than `pixels` allows.
      apply_exif: as training does.
      full: decodes the full resolution also of a JPEG.

    Raises:
      MemoryError: there is too little memory for the image.
    """
    if not data:
        return Finding("is empty")
    try:
        jpeg, bits = _load(data)
        if full or not jpeg:
            image = decoding.decode(data, apply_exif=apply_exif)
        else:
            image = _eighth(data, apply_exif)
    except decoding.Undecodable as error:
        return Finding(str(error))
    return Finding("", is_colourless(image), bits)


def why_unusable(data: bytes, *, full: bool = False) -> str:
    """Why a published image cannot be stored, '' if it can; `full` as in `examine`."""
    if not data:
        return "is empty"
    try:
        with decoding.open_header(data) as image:
            pixels(image)
    except decoding.Undecodable as error:
        return str(error)
    return examine(data, full=full).reason


def _load(data: bytes) -> tuple[bool, int]:
    """Whether it is a JPEG, and the bits that its values fill; all of the file is read."""
    with decoding.open_header(data) as image:
        jpeg = image.format in ("JPEG", "MPO")
        try:
            if jpeg:
                image.draft("RGB", (1, 1))
            image.load()
            deep = decoding.is_deep(image, data)
        except MemoryError:
            raise
        except Exception as error:  # Decoders raise anything.
            raise decoding.Undecodable(decoding.reason(error)) from error
        if not deep:
            return jpeg, 0
        try:
            values = decoding.deep_values(image, data)
            return jpeg, decoding.filled_bits(values) if values.dtype.kind == "u" else 0
        except cv2.error as error:
            raise decoding.Undecodable(decoding.reason(error)) from error


def _eighth(data: bytes, apply_exif: bool) -> np.ndarray:
    flags = cv2.IMREAD_REDUCED_COLOR_8 | (0 if apply_exif else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise decoding.Undecodable(decoding.reason(error)) from error
    if image is None:
        raise decoding.Undecodable("cannot be decoded")
    return image


def is_colourless(image: np.ndarray) -> bool:
    """Whether an image, uint8 (height, width, 3), has no colour anywhere."""
    stride = max(1, math.isqrt(image.shape[0] * image.shape[1] // _LOOKED_AT))
    some = image[::stride, ::stride]
    first, second, third = cv2.split(some)
    spread = max(int(cv2.absdiff(first, other).max()) for other in (second, third))
    return spread <= _COLOURLESS


def oddities(data: bytes, name: str) -> str:
    """A note on something unusual about a usable image; '' if there is nothing.

    Args:
      data: the content of the file.
      name: of the file, whose ending may contradict its content.
    """
    with decoding.open_header(data) as image:
        form, mode = image.format or "", image.mode
    said = name.rpartition(".")[2].upper().replace("JPG", "JPEG")
    found = [f"is {form} inside"] if "." in name and said != form else []
    return " and ".join(found + (["is CMYK"] if mode == "CMYK" else []))
