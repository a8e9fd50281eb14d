"""Examples of records: an image decoded, cut and mirrored, and its label or label map with it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.data import crops, decoding
from unnas_jax.data.order import CROP
from unnas_jax.data.records import Records, describe


def _image(records: Records, i: int, data: bytes, apply_exif: bool, factor: int = 1) -> np.ndarray:
    """Record i's image, its sides divided by a factor.

    Raises:
      UserError: naming the record, if it does not decode.
    """
    try:
        if factor > 1:
            return decoding.decode_reduced(data, factor, apply_exif=apply_exif)
        return decoding.decode(data, apply_exif=apply_exif)
    except ValueError as error:
        raise UserError(
            f"dataset: the image of {describe(records, i)} {error}; repair or remove it"
        ) from error
    except MemoryError as error:
        raise UserError(
            f"dataset: there is too little memory for the image of {describe(records, i)}; use "
            "fewer config.workers, a smaller batch or smaller images"
        ) from error


def _answer(
    records: Records, i: int, label: Any, label_maps: bool, size: tuple[int, ...]
) -> np.ndarray | int:
    """Record i's label, or its label map for an image of a size.

    Raises:
      UserError: naming the record, if its label map does not decode or does not fit.
    """
    if not label_maps:
        return 0 if isinstance(label, crops.LabelMap) else label
    if not isinstance(label, crops.LabelMap):
        raise UserError(
            f"dataset: {describe(records, i)} has no label map; use a dataset for segmentation"
        )
    try:
        classes = label.decode()
        if classes.shape != size:
            sizes = " and ".join(f"{a[1]} x {a[0]}" for a in (classes.shape, size))
            raise ValueError(f"and the image differ in size ({sizes})")
    except ValueError as error:
        raise UserError(
            f"dataset: the label map of {describe(records, i)} {error}; prepare the dataset again"
        ) from error
    return classes


def _read(
    records: Records, i: int, apply_exif: bool, label_maps: bool
) -> tuple[np.ndarray, np.ndarray | int]:
    """Record i's image and label or label map.

    Raises:
      UserError: naming the record, if it does not decode or its parts do not fit.
    """
    record = records[i]
    image = _image(records, i, record["image"], apply_exif)
    return image, _answer(records, i, record["label"], label_maps, image.shape[:2])


@dataclasses.dataclass(frozen=True)
class TrainRow:
    """Global position -> training example."""

    records: Records
    order: Callable[[int], int]
    size: int
    resize: int
    train_crop: str
    apply_exif: bool
    seed: int
    label_maps: bool
    resampling: str
    mirrored: bool

    def __call__(self, position: int) -> dict[str, Any]:
        """The example with `image`, `label` and `record`."""
        number = self.order(position)
        record = self.records[number]
        factor, size = self._plan(record["image"], position)
        image = _image(self.records, number, record["image"], self.apply_exif, factor)
        if factor > 1 and image.shape[:2] != tuple(-(-side // factor) for side in size):
            # Two readers of a damaged orientation may disagree.
            factor = 1
            image = _image(self.records, number, record["image"], self.apply_exif)
        label = _answer(self.records, number, record["label"], self.label_maps, image.shape[:2])
        if factor > 1:
            box = crops.reduced(self._box(position, *size), factor)
        else:
            box = self._box(position, image.shape[0], image.shape[1])
        return {
            **_cut(image, label, box, self.size, self.resampling, self.mirrored),
            "record": np.int32(number),
        }

    def _box(self, position: int, height: int, width: int) -> crops.Box:
        rng = np.random.default_rng((self.seed, CROP, position))
        return crops.TRAIN_CROPS[self.train_crop](height, width, self.size, self.resize, rng)

    def _plan(self, data: bytes, position: int) -> tuple[int, tuple[int, int]]:
        """By how much to shrink an image while it is decoded, and its size if by more than 1."""
        if self.label_maps or self.resampling != "area":
            return 1, (0, 0)
        least = crops.LEAST_REDUCED * self.size
        size = decoding.jpeg_size(data, least, apply_exif=self.apply_exif)
        if size is None:
            return 1, (0, 0)
        return crops.reduction(self._box(position, *size), self.size), size


def _cut(
    image: np.ndarray,
    label: np.ndarray | int,
    box: crops.Box,
    size: int,
    resampling: str,
    mirrored: bool,
) -> dict[str, Any]:
    """The region of the image, and its class or the region of the label map."""
    region = crops.cut(image, box, size, resampling)
    if mirrored:
        region = _mirror(region)
    if isinstance(label, np.ndarray):
        return {"image": region, "label": crops.cut_map(label, box, size, resampling)}
    return {"image": region, "label": np.int32(label)}


def _mirror(image: np.ndarray) -> np.ndarray:
    """(height, width, 3), left to right."""
    return np.ascontiguousarray(image[:, ::-1])


@dataclasses.dataclass(frozen=True)
class EvalRow:
    """Position in `indices` -> evaluation example, or padding behind their end."""

    records: Records
    indices: np.ndarray
    size: tuple[int, int]
    resize: int
    apply_exif: bool
    label_maps: bool
    eval_crop: str
    resampling: str
    mirrored: bool
    padding: tuple[int, ...]

    def __call__(self, position: int) -> dict[str, Any]:
        """The example with `image`, `label`, `record` and `mask`."""
        real = position < len(self.indices)
        number = int(self.indices[position]) if real else 0
        if real:
            example = self._example(number)
        else:
            image = np.zeros((*self.size, 3), np.uint8)
            label = np.full(self.size, crops.IGNORE, np.uint8) if self.label_maps else np.int32(0)
            example = {"image": image, "label": label}
        return {**example, "record": np.int32(number), "mask": np.float32(real)}

    def _example(self, i: int) -> dict[str, Any]:
        image, label = _read(self.records, i, self.apply_exif, self.label_maps)
        if self.eval_crop == "centre":
            box = crops.centre_box(image.shape[0], image.shape[1], self.size[0], self.resize)
            return _cut(image, label, box, self.size[0], self.resampling, self.mirrored)
        try:
            # Mirrored first: the padding stays at the right.
            padded = crops.pad(_mirror(image) if self.mirrored else image, *self.size, self.padding)
        except ValueError as error:
            raise UserError(
                f"dataset: the image of {describe(self.records, i)} {error}; evaluate on larger "
                "images"
            ) from error
        if isinstance(label, np.ndarray):
            return {"image": padded, "label": crops.pad(label, *self.size, crops.IGNORE)}
        return {"image": padded, "label": np.int32(label)}
