"""Decodes an image file of any format that the installed decoders read to uint8 RGB."""

import io
import re
import struct
from typing import IO

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

# Images are decoded in parallel by many threads or processes, each of which would otherwise start
# as many threads of OpenCV's own as there are cores.
cv2.setNumThreads(1)

MAX_PIXELS = 100_000_000
"""The most pixels of an image, unless a config says otherwise: 0.3 GB when decoded."""

# Pillow's own limit is of the whole process and cannot follow a config; `verify.pixels` has one.
Image.MAX_IMAGE_PIXELS = None

Image.init()
# Formats that run another program (EPS), are stubs for plugins, or hold no picture themselves.
_NO_PICTURES = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "FITS", "MPEG", "IPTC", "MCIDAS", "XVTHUMB"}
_USUAL = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
FORMATS = (*_USUAL, *sorted(set(Image.OPEN) - _NO_PICTURES - set(_USUAL)))
"""Pillow's formats that are read, in the order in which they are tried."""

EXTENSIONS = frozenset(
    end for end, form in Image.registered_extensions().items() if form in FORMATS
)
"""The endings of image files, in lower case with their dot."""

# A PPM of 8 bits a colour.
_PPM = re.compile(rb"P6\s+\d+\s+\d+\s+255\s")
_JPEG = b"\xff\xd8"
# The markers of a frame's header (T.81, table B.1), which has the size.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Values of more bits that fill no more than so many become 8 bits by their own range: cameras and
# scanners of 10 or 12 bits write them so, and all of them would be black otherwise.
PARTLY_FILLED = 12


# Other kinds of files that often have the ending of an image, by their first bytes.
_FOREIGN = (
    (rb".{4}ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", "is HEIC inside; convert it to .jpg"),
    (rb".{4}ftyp(?!avif|avis)", "is a video inside"),
    (rb"version https://git-lfs", "is a pointer of Git LFS to the image; run git lfs pull"),
    (rb"\s*<(!doctype|html|\?xml|svg)", "is a page of HTML or XML inside, no image"),
    (rb"PK\x03\x04|\x1f\x8b|Rar!", "is an archive inside; unpack it"),
    (rb"%PDF", "is a PDF inside"),
)


class Undecodable(ValueError):
    """A file that is no image or a damaged one; the message continues a line after its name."""


def reason(error: BaseException) -> str:
    """The message of a decoder's exception, as the end of a line."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "is not an image, or of a kind that cannot be read"
    words = error.err if isinstance(error, cv2.error) else getattr(error, "strerror", "")
    words = " ".join(str(words or error).split())[:200]
    return (
        f"cannot be decoded ({words})" if words else f"cannot be decoded ({type(error).__name__})"
    )


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem
    )


def open_header(source: bytes | IO[bytes]) -> Image.Image:
    """The image of some bytes or an open file with its metadata, none of its pixels read.

    Raises:
      Undecodable: there is no such image.
    """
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        return Image.open(file, formats=FORMATS)
    except Exception as error:  # Decoders raise anything: struct.error, TypeError, RuntimeError.
        if _out_of_memory(error):
            raise
        start = source[:64] if isinstance(source, bytes) else _start(source)
        for pattern, words in _FOREIGN:
            if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
                raise Undecodable(words) from error
        raise Undecodable(reason(error)) from error


def _start(file: IO[bytes]) -> bytes:
    """The first bytes of an open file; b"" if they cannot be read."""
    try:
        file.seek(0)
        return file.read(64)
    except (OSError, ValueError):
        return b""


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of an image once it is turned as its EXIF orientation says."""
    width, height = image.size
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def jpeg_size(data: bytes, least: int, *, apply_exif: bool) -> tuple[int, int] | None:
    """Height and width of a JPEG, none of its pixels read; None of small, other or damaged files.

    Args:
      data: the content of an image file.
      least: the shorter side of what is not small, in pixels.
      apply_exif: whether `decode` turns it as its EXIF orientation says.
    """
    place = 2
    while data.startswith(_JPEG) and data[place : place + 1] == b"\xff" and len(data) > place + 9:
        if data[place + 1] in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            if min(height, width) < least:
                return None
            if not apply_exif:
                return height, width
            try:
                with open_header(data) as image:
                    return upright_size(image)
            except Exception:  # Pillow raises anything; `decode` says what is wrong, if it is.
                return None
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None


def decode_reduced(data: bytes, factor: int, *, apply_exif: bool) -> np.ndarray:
    """Decodes a JPEG to a half, a quarter or an eighth of its sides, rounded up: (h, w, 3), RGB.

    The decoder averages on the way, for a fraction of the time and memory of all pixels.

    Args:
      data: the content of a JPEG file.
      factor: 2, 4 or 8.
      apply_exif: turns the image upright as its EXIF orientation says.

    Raises:
      Undecodable: the data cannot be decoded.
      MemoryError: there is too little memory for the image.
    """
    try:
        image = _opencv(data, apply_exif, _REDUCED[factor])  # BGR: there is no RGB of these.
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    except cv2.error as error:
        if _out_of_memory(error):
            raise MemoryError("an image needs more memory than there is") from error
        raise Undecodable(reason(error)) from error


def decode(data: bytes, *, apply_exif: bool) -> np.ndarray:
    """Decodes an image to uint8 RGB of shape (height, width, 3).

    Gray, palette, CMYK and deeper images become RGB of 8 bits; transparent images are laid over
    white; of an animation it is the first frame. Images of 16 bits whose values fill no more than
    12 are scaled by the bits that they fill.

    Args:
      data: the content of an image file.
      apply_exif: turns the image upright as its EXIF orientation says.

    Raises:
      Undecodable: the data cannot be decoded.
      MemoryError: there is too little memory for the image.
    """
    if not data:
        raise Undecodable("is empty")
    try:
        # These have neither transparency nor more bits, and must be fast.
        if data.startswith(_JPEG) or _PPM.match(data):
            return _opencv(data, apply_exif)
        with open_header(data) as image:
            if is_deep(image, data):
                return _deep(image, data, apply_exif)
            if not image.has_transparency_data and image.format in ("PNG", "WEBP"):
                return _opencv(data, apply_exif)
            # The colours under transparent pixels are arbitrary, often leftovers of an editor.
            return _over_white(ImageOps.exif_transpose(image) if apply_exif else image)
    except Undecodable:
        raise
    except Exception as error:
        if _out_of_memory(error):
            raise MemoryError("an image needs more memory than there is") from error
        raise Undecodable(reason(error)) from error


def _opencv(data: bytes, apply_exif: bool, colours: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    flags = colours | (0 if apply_exif else cv2.IMREAD_IGNORE_ORIENTATION)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise Undecodable("cannot be decoded")
    return image


def _over_white(image: Image.Image) -> np.ndarray:
    """Composites over white, as a page or viewer shows it."""
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


# More than 8 bits.


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether an image stores more than 8 bits a value."""
    if image.format == "PNG":
        return data[24] > 8  # IHDR comes first; Pillow calls 16-bit colours RGB.
    if image.format == "TIFF":
        bits = image.getexif().get(ExifTags.Base.BitsPerSample, 8)
        return max(bits if isinstance(bits, tuple) else (bits,)) > 8
    return image.mode.startswith(("I", "F"))


def deep_values(image: Image.Image, data: bytes) -> np.ndarray:
    """The values as stored: (height, width) or (height, width, 3 or 4) in RGB and alpha."""
    values = None
    if image.format in ("PNG", "TIFF"):  # Pillow reads their colours in 8 bits only.
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        return np.asarray(image)
    if values.ndim == 3:
        code = cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB
        values = cv2.cvtColor(values, code)
    return values


def filled_bits(values: np.ndarray) -> int:
    """The bits that the colours of whole numbers fill, 8 at least; without their alpha."""
    colours = values[..., :3] if values.ndim == 3 else values
    return max(8, int(colours.max()).bit_length())


def _deep(image: Image.Image, data: bytes, apply_exif: bool) -> np.ndarray:
    values = deep_values(image, data)
    least, most = values.min(), values.max()  # NaN if there is one.
    if values.dtype.kind == "f":
        top = 1.0 if most <= 1 else 255.0
        if not (least >= 0 and most <= top):
            raise Undecodable(
                f"has values from {least:g} to {most:g}; convert it to 8 bits: numbers in floating "
                "point are read from 0 to 1 or 0 to 255"
            )
    else:
        if least < 0 or most > 65535:
            raise Undecodable(f"has values from {least} to {most}; convert it to 8 bits")
        bits = filled_bits(values)
        top = float(2 ** (bits if bits <= PARTLY_FILLED else 16) - 1)
        values = values.astype(np.uint16, copy=False)
    pixels = cv2.convertScaleAbs(values, alpha=255 / top)
    if values.ndim == 3 and values.shape[2] == 4 and values.dtype == np.uint16:
        pixels[..., 3] = values[..., 3] >> 8  # Alpha fills all of its bits.
    upright = Image.fromarray(pixels)
    if apply_exif:
        upright.getexif()[ExifTags.Base.Orientation] = image.getexif().get(
            ExifTags.Base.Orientation, 1
        )
        upright = ImageOps.exif_transpose(upright)
    return _over_white(upright)
