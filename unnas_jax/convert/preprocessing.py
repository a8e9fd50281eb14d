"""The preprocessing of a network for its use elsewhere: as facts and as NumPy source."""

from typing import Any

from unnas_jax.runs.trained import Trained
from unnas_jax.tasks.transforms import Augmentation

_NORMALISED = ("classification", "rotation", "segmentation")


def is_known(trained: Trained) -> bool:
    """Whether the inputs are just the normalised crops of images."""
    return trained.config.task.name in _NORMALISED


def facts(trained: Trained) -> dict[str, Any]:
    """The steps from an image to an input, as they can be written in JSON."""
    config = trained.config
    augmentation = Augmentation.create(config.input, trained.dataset)
    section = config.input
    found: dict[str, Any] = {
        "image": "uint8, RGB, upright",
        "mirrored": section.mirrored,
        "mean": list(augmentation.mean),
        "std": list(augmentation.std),
        "then": "(pixels / 255 - mean) / std",
    }
    if config.eval.crop == "whole":
        found["pad_to"] = list(config.eval.whole_size)
        found["padding"] = list(trained.preprocessing.padding)
    else:
        keys = ("resize", "crop", "resampling")
        found |= {key: getattr(section, key) for key in keys}
    if not is_known(trained):
        found["then"] = f"what the task {config.task.name} makes of (pixels / 255)"
    return found


def source_of(trained: Trained, channels_first: bool) -> str:
    """A file with a function `preprocess`, which needs NumPy alone."""
    known = facts(trained)
    constants = {
        "MEAN": tuple(known["mean"]),
        "STD": tuple(known["std"]),
        "MIRRORED": known["mirrored"],
        "CHANNELS_FIRST": channels_first,
    }
    if "pad_to" in known:
        constants |= {"SIZE": tuple(known["pad_to"]), "PADDING": tuple(known["padding"])}
        body = _WHOLE
    else:
        constants |= {"RESIZE": known["resize"], "CROP": known["crop"]}
        constants["AVERAGES"] = known["resampling"] == "area"
        constants["CUTS_OFF"] = known["resampling"] == "bilinear_cut_off"
        body = _CENTRE
    lines = [f"{name} = {value!r}" for name, value in constants.items()]
    return "\n".join([_HEAD, *lines, body, _END])


_HEAD = '''"""Makes the network's inputs of images; needs NumPy alone.

    inputs = np.stack([preprocess(image) for image in images])
"""

import numpy as np
'''

_WHOLE = '''

def framed(image):
    """All of an image, padded right and bottom."""
    result = np.empty((*SIZE, 3), np.uint8)
    result[:] = PADDING
    result[: image.shape[0], : image.shape[1]] = image
    return result
'''

_CENTRE = '''

def resizing(source, target):
    """The matrix (target, source) that resizes rows or columns."""
    matrix, scale = np.zeros((target, source)), source / target
    for k in range(target):
        if AVERAGES and scale >= 2:  # The mean of all pixels below the new one.
            first, last = k * scale, (k + 1) * scale
            for j in range(int(first), min(int(np.ceil(last)), source)):
                matrix[k, j] = (min(last, j + 1) - max(first, j)) / scale
        else:  # Between the two nearest pixels.
            place = min(max((k + 0.5) * scale - 0.5, 0), source - 1)
            lower = int(place)
            matrix[k, lower] += 1 - (place - lower)
            matrix[k, min(lower + 1, source - 1)] += place - lower
    return matrix


def framed(image):
    """The central square of an image whose short side is RESIZE pixels, CROP pixels a side."""
    height, width = image.shape[:2]
    short = min(height, width)
    side = max(1, min(short, round(short * CROP / max(CROP, RESIZE))))
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    matrix = resizing(side, CROP)
    pixels = np.einsum("rh,cw,hwk->rck", matrix, matrix, square, optimize=True)
    return (pixels if CUTS_OFF else np.rint(pixels)).astype(np.uint8)
'''

_END = '''

def preprocess(image):
    """An image, uint8 (height, width, 3), RGB, upright, as one input, float32."""
    pixels = framed(image[:, ::-1] if MIRRORED else image).astype(np.float32) / 255
    inputs = (pixels - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(inputs.transpose(2, 0, 1) if CHANNELS_FIRST else inputs)
'''
