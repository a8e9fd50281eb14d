"""Whether the bytes of a file are a whole image that training can decode.

Pillow warns of odd metadata; callers ignore its warnings, because pixels are what counts.
"""

import io

import cv2
import numpy as np
from PIL import Image

from unnas_jax.data import crops


def why_damaged(data: bytes, *, full: bool = False) -> str:
    """Why `data` is no whole image; '' if it is one.

    Pillow tells a truncated file from a whole one (OpenCV 4 fills the rest with gray), OpenCV is
    what decodes in training. Of a JPEG both decode an eighth of the resolution, which reads all of
    the file in a third of the time.

    Args:
      data: the content of a file.
      full: OpenCV decodes the full resolution also of a JPEG.
    """
    if not data:
        return "is empty"
    try:
        with Image.open(io.BytesIO(data)) as image:
            jpeg = image.format == "JPEG"
            if jpeg:
                image.draft("RGB", (1, 1))
            image.load()
    except Image.UnidentifiedImageError:
        return "is not an image"
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        return str(error) or type(error).__name__
    try:
        if full or not jpeg:
            crops.decode(data, apply_exif=False)
        elif cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_8) is None:
            return "cannot be decoded"
    except (ValueError, cv2.error) as error:
        return str(error)
    return ""


def oddities(data: bytes, name: str) -> str:
    """What is unusual about a whole image that is used as it is; '' if nothing.

    Args:
      data: the content of the file.
      name: of the file, whose ending may contradict its content.
    """
    with Image.open(io.BytesIO(data)) as image:
        form, mode = image.format or "", image.mode
    said = name.rpartition(".")[2].upper().replace("JPG", "JPEG")
    found = [f"is {form} inside"] if "." in name and said != form else []
    return " and ".join(found + (["is CMYK"] if mode == "CMYK" else []))
